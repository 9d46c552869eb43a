"""The gallery: settings, studies, unfinished runs, links, stale pages, and the escape of every text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from gallery_fixtures import Page, only_page, pair, setting_pages, store
from pandas import DataFrame
from PIL import Image

from kdhelpers import artifacts
from kdhelpers.analysis.hypersphere_page import hypersphere_page
from kdhelpers.display import plots
from kdhelpers.display.html import Markup, curve, render
from kdhelpers.report import study_sentences as sentences
from kdhelpers.report.gallery import readme, write_gallery
from kdhelpers.report.gallery.overview import comparisons
from kdhelpers.report.gallery.setting_page import number
from kdhelpers.report.gallery.settings import stored_settings

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KD_ROOT", str(tmp_path))
    return tmp_path


def test_without_records_the_page_names_the_first_command_and_no_readme_is_written():
    page = Page(write_gallery())
    assert "python -m kdhelpers suite --profile smoke" in page.text
    assert "0 stored runs" in page.text
    assert not (artifacts.folder("plots") / "README.md").exists()


def test_the_overview_has_the_best_student_its_paired_gain_and_what_it_was_compared_with():
    pair()
    (one,) = comparisons(stored_settings(artifacts.records(), {}))
    assert (one.pair, one.best.method, one.accuracy) == ("t → resnet8", "KD", "53.50 ± 0.71")
    assert one.best.gain == "+2.50 ± 0.71 (2 seeds)"  # 3 and 2
    assert one.compared == "3 settings: CE (no teacher) · CRD · KD; n = 1 to 2 seeds"
    assert "30" not in one.cost
    assert "78 k parameters, 12 M MACs" in one.cost
    assert "53.50 ± 0.71" in Page(write_gallery()).text


def test_a_placebo_is_never_the_best_student():
    pair()
    store("placebo", 59.0, method="lm", teacher="t_cifar100", placebo="shuffled")
    (one,) = comparisons(stored_settings(artifacts.records(), {}))
    assert one.accuracy == "53.50 ± 0.71"


def test_the_table_has_a_row_per_setting_that_leads_to_its_page_and_marks_the_best():
    pair()
    text = write_gallery().read_text()
    rows = [row for row in re.findall("<tr.*?</tr>", text, re.DOTALL) if "<td" in row]
    assert len(rows) == 4
    assert [("★" in row, "53.50" in row) for row in rows].count((True, True)) == 1
    assert text.count('class="star"') == 1
    (link,) = re.findall('href="(pages/cifar100_resnet8_lm_.*?)"', rows[[("53.50" in row) for row in rows].index(True)])
    assert (artifacts.folder("plots") / link).is_file()
    heads = re.findall('<th scope="col">(.*?)</th>', text)
    assert heads[:2] == ["method", "test top-1, %"]  # the columns that stay in view


def test_a_page_has_all_seeds_gains_curves_conditions_command_and_links_to_existing_files():
    pair()
    write_gallery()
    (path,) = (page for page in setting_pages() if "_lm_" in page.name)
    page = Page(path)
    for text in (
        "53.50 ± 0.71",
        "+2.50 ± 0.71",
        "+3.00",
        "+2.00",
        "53.00 %",
        "54.00 %",
        "A chip, fp32",
        "2 epochs, batch 64",
    ):
        assert text in page.text
    assert "best_val: the epoch that is best on held-out training images" in page.text
    assert "python -m kdhelpers train json_results/lm0_cifar100.json" in page.text
    assert "papermill lm0_cifar100.ipynb" in page.text
    assert page.tags.count("polyline") == 2 * 3 + 1  # two accuracies and the loss of two seeds; the teacher
    assert [link for link in page.links if "json_results" in link] == [
        f"../../json_results/lm{seed}_cifar100.json" for seed in (0, 1)
    ]
    assert all((path.parent / link.partition("#")[0]).is_file() for link in page.links)


def test_the_executed_notebook_is_linked_as_html_if_there_is_one_and_weights_too():
    store("a")
    (artifacts.folder("executed") / "a.ipynb").write_text("{}")
    artifacts.weights_path("a").write_bytes(b"x")
    write_gallery()
    assert only_page().links[1:] == [
        "../../json_results/a.json",
        "../../pth_models/a.pth",
        "../../notebooks/executed/a.ipynb",
    ]
    pages = artifacts.folder("plots") / "notebooks"
    pages.mkdir()
    (pages / "a.html").write_text("")
    write_gallery()
    assert only_page().links[-1] == "../../plots/notebooks/a.html"


def test_profiles_are_those_of_the_job_without_its_seed():
    store("x_seed1", seed=1)
    assert "laptop" in Page(write_gallery({"x": ["laptop", "short"]})).text
    assert "laptop, short" in only_page().text


def test_digits_come_last_apart_and_marked():
    pair()
    store("d", dataset="digits")
    page = Page(write_gallery())
    assert page.text.index("All settings") < page.text.index("not evidence for a method")
    (path,) = (page for page in setting_pages() if "digits" in page.name)
    assert "not evidence for a method" in Page(path).text
    assert not any("not evidence" in Page(path).text for path in setting_pages() if "digits" not in path.name)
    assert len(comparisons(stored_settings(artifacts.records(), {}))) == 1


def test_failed_running_and_interrupted_runs_are_shown_as_such():
    store("a", status="failed", error="FloatingPointError: epoch 3: loss term kd is not finite")
    store("b", status="running", seed=1)
    page = Page(write_gallery())
    assert "epoch 3: loss term kd is not finite" in page.text
    assert "interrupted" in page.text  # no process holds its lock
    store("c", status="failed", error="interrupted; the same run continues")
    path = artifacts.record_path("c")
    artifacts.save_json(path, artifacts.load_json(path) | {"resumed": ["2026-11-21T02:30:00+00:00"]})
    page = Page(write_gallery())
    assert page.text.count("Its process ended early") == 2
    assert "Resumed: 2026-11-21T02:30:00+00:00" in page.text
    path.unlink()
    with artifacts.lock(artifacts.run_lock_path(f"{'b':0<64}")):
        assert "interrupted" not in Page(write_gallery()).text


def test_everything_is_escaped():
    store("a", model=HOSTILE, dataset=HOSTILE, optimizer=HOSTILE)
    store("b", status="failed", error=HOSTILE, method="lm", seed=1)
    store('c" onclick="x', status=HOSTILE, role='" onclick="x', seed=HOSTILE)
    store("d", seed=2)
    path = artifacts.record_path("d")
    artifacts.save_json(path, artifacts.load_json(path) | {"notes": [HOSTILE], "origin": {HOSTILE: HOSTILE}})
    for name in ('a"><script>&#.png', 'a" onerror="x.png', 'a" onerror="x.csv', "results_<b>.png"):
        (artifacts.folder("plots") / name).write_bytes(b"")
    index = Page(write_gallery())
    assert index.tags.count("script") == 2  # those of the template
    pages = [Page(path) for path in setting_pages()]
    assert not any("script" in page.tags for page in pages)
    for page in (index, *pages):
        assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert sum(page.text.count(HOSTILE) for page in (index, *pages)) >= 8
    readme = (artifacts.folder("results") / "README.md").read_text()
    assert "<script" not in readme
    assert "<b>" not in (artifacts.folder("plots") / "README.md").read_text()


def test_page_names_stay_in_their_folder_are_unique_and_do_not_change_with_other_records():
    store("a", dataset="../../x", model="..")
    store("b", dataset="../../x", model="..", lr=0.1)
    write_gallery()
    first = setting_pages()
    assert len(first) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", path.name) and not path.name.startswith(".") for path in first)
    store("0", dataset="../../x", model="..", seed=3)  # sorts before the others
    store("c", dataset="other")
    write_gallery()
    assert set(first) < set(setting_pages())
    assert len(setting_pages()) == 3


def test_pages_of_deleted_records_are_removed_and_a_users_own_stay():
    store("a")
    store("b", dataset="other")
    write_gallery()
    own = artifacts.folder("plots") / "pages" / "own.html"
    own.write_text("<title>mine</title>")
    artifacts.record_path("b").unlink()
    write_gallery()
    assert [path.name.partition("_")[0] for path in setting_pages()] == ["cifar100", "own.html"]


def test_pages_that_did_not_change_are_not_written_again():
    store("a")
    write_gallery()
    (path,) = setting_pages()
    before = path.stat().st_ino
    write_gallery()
    assert path.stat().st_ino == before  # every write renames a new file


def test_a_picture_stands_in_its_study_or_on_the_page_of_its_run_or_last():
    store("a")
    for name in ("attention_resnet8_cifar100", "a_curves", "of a user"):
        (artifacts.folder("plots") / f"{name}.png").write_bytes(b"")
    (artifacts.folder("plots") / "of a user.csv").write_text("first_column,second\n")
    text = write_gallery().read_text()
    study, other = text.index('<section id="grad-cam">'), text.index('<section id="other">')
    assert study < text.index('src="attention_resnet8_cifar100.png"') < other < text.index('src="of%20a%20user.png"')
    assert 'href="of%20a%20user.csv"' in text
    assert 'alt="of a user: picture of first column, second"' in text
    assert "a_curves" not in text
    assert only_page().links.count("../a_curves.png") == 2
    assert "../attention_resnet8_cifar100.png" in only_page().links  # the study of its network


def test_the_description_in_a_picture_is_its_alt_text():
    figure = plots.new_figure(1, 1)
    path = artifacts.folder("plots") / "results_x.png"
    figure.savefig(path, metadata={"Description": 'KD gains "most" & <b>'})
    store("a")
    assert 'alt="KD gains &#34;most&#34; &amp; &lt;b&gt;"' in write_gallery().read_text()


def test_sentences_are_generated_from_the_saved_numbers():
    store("a")
    (artifacts.folder("plots") / "kl_ranking_resnet8_cifar100.png").write_bytes(b"")
    rows = [("KD", 0.2, 80.0, 0), ("KD", 0.4, 82.0, 1), ("CRD", 0.5, 70.0, 0), ("CRD", 0.5, 70.0, 1)]
    frame = DataFrame(rows, columns=["student", "kl_nats", "agreement_pct", "seed"])
    path = artifacts.folder("plots") / "kl_ranking_resnet8_cifar100.csv"
    frame.to_csv(path, index=False)
    text = Page(write_gallery()).text
    assert "KD is nearest to its teacher: a KL of 0.300 nats, mean over 2 seeds; CRD is farthest: 0.500." in text
    assert "for 81.0 % of the test images" in text
    path.write_text("other\n1\n")  # as another version wrote it
    assert "is nearest to" not in Page(write_gallery()).text


def test_a_better_student_by_another_optimiser_is_named_in_the_overview():
    pair()
    for seed, top1 in enumerate((60.0, 61.0)):
        lion = {"optimizer": "lion", "lr": 0.001, "method": "conkd", "teacher": "t_cifar100"}
        store(f"lion{seed}", top1, seed=seed, dataset="cifar100", **lion)
    store("adamw0", 20.0, dataset="cifar100", **lion | {"optimizer": "adamw"})
    text = " ".join(Page(write_gallery()).text.split())
    better = "ConKD by Lion, 60.50 ± 0.71 %, +9.50 ± 0.71 points over CE (no teacher) by SGD (2 seeds)."
    assert f"Better by another optimiser: {better}" in text
    assert "another optimiser: ConKD by AdamW" not in text
    assert "better by another optimiser: [ConKD by Lion](" in (artifacts.folder("results") / "README.md").read_text()


def test_the_gains_are_a_sentence_also_if_no_method_gains():
    frame = DataFrame({"method": ["KD", "KD", "CRD"], "seed": [0, 1, 0], "gain_points": [1.0, 2.0, -1.0]})
    most = "KD gains most: +1.50 points over the student alone, mean over 2 seeds."
    assert sentences.gains(frame) == [most, "1 of 2 settings gains with every seed."]
    worse = frame.assign(gain_points=frame["gain_points"] - 5)
    assert sentences.gains(worse)[0].startswith("KD loses least: −3.50 points over the student alone")


def test_the_cost_of_methods_is_the_measured_step_not_the_time_on_a_shared_machine():
    rows = [("KD", 1.7, 0.99, 42.0), ("CRD", 2.4, 1.39, 144.0), ("CE", None, 0.61, 27.0)]
    frame = DataFrame(rows, columns=["method", "gain_points", "step_ratio", "seconds_per_epoch"])
    assert sentences.costs(frame) == [
        "The gain of CRD is the largest (+2.40 points), that of KD the smallest (+1.70).",
        "The time of a training step, relative to KD, is 0.61 with CE and 1.4 with CRD.",
    ]
    assert len(sentences.costs(frame.drop(columns="step_ratio"))) == 1


def test_a_name_with_a_comma_stays_apart_from_its_number():
    rows = [("CE, jittered", "strong", 12.5, 0), ("CRD", "strong", 25.25, 0), ("t", "strong", 13.0, None)]
    frame = DataFrame(rows, columns=["model", "strength", "drop_pct", "seed"])
    assert sentences.colour(frame) == [
        "With strong jitter of the test images the students lose 12.5 points (CE, jittered) to 25.2 points (CRD), "
        "mean over 1 seed.",
        "Single runs lose 13.0 points (t).",
    ]


def test_a_page_names_the_weights_that_training_started_from():
    store("tuned")
    path = artifacts.record_path("tuned")
    artifacts.save_json(path, json.loads(path.read_text()) | {"start": {"name": "first_teacher", "sha256": "c" * 64}})
    write_gallery()
    assert "started fromfirst_teacher" in only_page().text


def test_a_picture_has_its_size_so_that_a_link_to_a_figure_finds_it():
    Image.new("RGB", (60, 30)).save(artifacts.folder("plots") / "kl_ranking_a.png")
    (artifacts.folder("plots") / "kl_ranking_b.png").write_bytes(b"")
    store("a")
    text = write_gallery().read_text()
    assert text.count('width="60" height="30"') == text.count("<img") - 1


def test_best_student_and_where_it_looks_are_one_click_away():
    pair()
    name = "distillation_grad_cam_comparison_resnet8_cifar100"
    (artifacts.folder("plots") / f"{name}.png").write_bytes(b"")
    text = write_gallery().read_text()
    assert f'href="#{name}"' in text[text.index('id="overview"') : text.index("</section>")]
    assert f'<figure id="{name}">' in text


def test_interactive_pages_of_this_package_are_linked_and_no_others():
    points = [{"network": "a", "label": 0, "x": 1.0, "y": 0.0, "z": 0.0, "kept_pct": 50.0}]
    plots.save_page(hypersphere_page(DataFrame(points), ["c"], f"resnet8 & {HOSTILE}"), "sphere+1")
    (artifacts.folder("plots") / "own.html").write_text("<title>kdhelpers, my notes</title>")
    (artifacts.folder("plots") / "latin.html").write_bytes(b"<title>\xe5</title>")
    (artifacts.folder("plots") / "folder.html").mkdir()
    for _ in range(2):  # the second time there is an index.html already
        page = Page(write_gallery())
        assert page.links == ["sphere%2B1.html"]
        assert f"Embeddings on the sphere · resnet8 & {HOSTILE}" in page.text


def test_the_pages_need_nothing_from_outside():
    pair()
    for path in (write_gallery(), *setting_pages()):
        assert not re.search("https?://|@import|url\\(|<script src", path.read_text())


@pytest.mark.parametrize("kind", ["plots", "results"])
def test_the_readme_has_the_overview_and_a_second_report_does_not_change_it(kind):
    pair()
    store("d", 99.0, dataset="digits")
    (artifacts.folder("plots") / "results_gains_cifar100.png").write_bytes(b"")
    write_gallery()
    path = artifacts.folder(kind) / "README.md"
    text = path.read_text()
    assert "`python -m kdhelpers report` generates this file" in text
    assert "53.50 ± 0.71 | +2.50 ± 0.71 (2 seeds) | the student alone" in text
    assert "digits" not in text
    for link in re.findall(r"\]\((?!http)([^)]*\.(?:json|png))\)", text):
        assert (path.parent / link).is_file()
    write_gallery()
    assert path.read_text() == text


def test_a_readme_escapes_html_markdown_and_formulas():
    assert readme.text("a|b*c_$d$ <i>\n`e`") == "a\\|b\\*c\\_\\$d\\$ &lt;i&gt; \\`e\\`"


@pytest.mark.parametrize("kind", ["plots", "results"])
def test_a_suite_on_the_digits_leaves_the_readme_of_real_data_and_a_users_own(kind):
    path = artifacts.folder(kind) / "README.md"
    pair("digits")
    write_gallery()
    assert "not evidence for a method" in path.read_text()
    pair()
    write_gallery()
    real = path.read_text()
    assert "not evidence" not in real
    for record in artifacts.records():
        if record["run"]["dataset"] != "digits":
            artifacts.record_path(record["name"]).unlink()
    write_gallery()
    assert path.read_text() == real
    path.write_text("mine")
    pair()
    write_gallery()
    assert path.read_text() == "mine"


def test_curve_places_points_skips_gaps_and_draws_the_reference():
    chart = curve("accuracy", {"a": [[0.0, None, float("nan"), 10.0], [5.0]], "b": [[None]]}, ("teacher", 20.0))
    lines = re.findall('points="(.*?)" class="(.*?)"', chart)
    assert lines[0] == (" ".join(f"{x},8.0" for x in ("44.0", "160.0", "276.0", "392.0")), "reference")
    assert lines[1] == ("44.0,188.0 392.0,98.0", "line0")  # 0 at the bottom, 10 half-way to the teacher's 20
    assert lines[2] == ("44.0,143.0 87.5,143.0", "line0")  # one epoch is a dash
    assert len(lines) == 3
    assert re.findall('text-anchor="end">([0-9]+)<', chart) == ["0", "5", "10", "15", "20"]
    assert "a ends at 10, 5" in chart
    assert "not recorded" in curve("loss", {"a": [[None]]})


def test_templates_escape_texts_and_attributes_but_not_markup():
    chart = curve(f'{HOSTILE}" onload="x', {HOSTILE: [[1.0]]}, (HOSTILE, 2.0))
    assert not re.search('<script|onload="', chart)
    assert re.search('aria-label="&lt;script&gt;.*?&#34; onload=&#34;x over 1 epochs: &lt;script', chart)
    assert chart.count("&lt;script&gt;") == 5  # title, label twice, line, reference
    assert f"<title>kdhelpers: {Markup.escape(HOSTILE)}</title>" in render("display/page.html.j2", title=HOSTILE)
    assert "<title>kdhelpers: <i>c</i></title>" in render("display/page.html.j2", title=Markup("<i>c</i>"))


def test_a_missing_number_is_a_dash():
    assert [number(value, "{:.1f}") for value in (1.25, None, float("nan"), "x")] == ["1.2", "–", "–", "–"]
