"""The studies: what each asks, which notebooks make it, and the names of its saved pictures and pages.

A picture belongs to the first study of STUDIES with a pattern that fits its name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from kdhelpers.report import study_sentences as sentences


@dataclass(frozen=True)
class Study:
    """`numbers`: pattern of the CSV that `from_numbers` reads; `from_runs` reads the stored settings."""

    key: str
    title: str
    question: str
    notebooks: Sequence[str]
    patterns: Sequence[str] = ()
    numbers: str = ""
    from_numbers: Callable = sentences.none
    from_runs: Callable = sentences.none

    def claims(self, stem: str) -> bool:
        return any(fnmatchcase(stem, pattern) for pattern in self.patterns)


STUDIES = (
    Study(
        "comparison",
        "Comparison",
        "What does each method add to the student alone?",
        ["30_results"],
        ["results_*"],
        "results_gains_*",
        sentences.gains,
    ),
    Study(
        "methods",
        "Methods and their cost",
        "What does each method gain, and what does it cost?",
        ["31_method_table", "15_logit_methods", "16_relations", "17_feature_maps"],
        ["method_table_*", "logit_methods_*", "relations_*", "feature_maps_*"],
        "method_table_*",
        sentences.costs,
    ),
    Study(
        "changes",
        "What changed",
        "Which test images does the student predict right because of its teacher, and which wrong?",
        ["23_what_changed"],
        ["what_changed_*", "changed_*", "changes_*"],
    ),
    Study(
        "deploy",
        "Deployment",
        "What do teacher and students cost in production, in float and in int8?",
        ["24_deploy"],
        ["deploy_*"],
    ),
    Study(
        "controls",
        "Controls",
        "Does the student learn from its teacher, or does any soft target help?",
        ["18_controls"],
        ["*_controls"],
        "*_controls",
        sentences.controls,
    ),
    Study(
        "capacity",
        "Capacity of the teacher",
        "Does a larger teacher make a better student?",
        ["14_teacher_capacity"],
        ["teacher_capacity_*"],
        "teacher_capacity_*",
        sentences.capacity,
    ),
    Study(
        "colour",
        "Invariance to colour",
        "Does a student inherit its teacher's invariance to colour?",
        ["13_color_invariance"],
        ["color_invariance_*"],
        "color_invariance_*",
        sentences.colour,
    ),
    Study(
        "distribution",
        "Distribution",
        "Which student's class probabilities are nearest to the teacher's?",
        ["20_distribution_quality"],
        ["kl_ranking_*", "reliability_*", "logit_correlation_*", "explore*"],
        "kl_ranking_*",
        sentences.distribution,
    ),
    Study(
        "grad-cam",
        "Grad-CAM",
        "Do the students look where their teacher looks?",
        ["21_gradcam"],
        ["attention_*", "distillation_grad_cam_comparison*"],
        "attention_*",
        sentences.attention,
    ),
    Study(
        "embeddings",
        "Embeddings",
        "Do the students arrange images as their teacher does?",
        ["22_tsne"],
        ["tsne_*", "hypersphere_*"],
        "hypersphere_*",
        sentences.embeddings,
    ),
    Study(
        "unlabelled",
        "Unlabelled images",
        "What do images without labels add?",
        ["12_unlabelled_data", "32_label_images"],
        ["*unlabelled*_predictions"],
        from_runs=sentences.unlabelled,
    ),
    Study(
        "optimisers",
        "Optimisers",
        "Does a student learn more from Lion's steps than from AdamW's or SGD's?",
        ["19_optimisers", "10_conkd"],
        ["*-teacher_output*", "*-teacher-student_output*"],
        from_runs=sentences.optimisers,
    ),
    Study(
        "full-budget",
        "Full budget",
        "What does a published pair reach with all its epochs?",
        ["30_results"],
        ["curves_*"],
        from_runs=sentences.full_budget,
    ),
)


@cache
def study_of(stem: str) -> Study | None:
    """The study that claims the picture or page with this name."""
    return next((study for study in STUDIES if study.claims(stem)), None)
