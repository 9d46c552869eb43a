"""The examples at the end of each help; `\\b` keeps click from wrapping them."""

GROUP_EXAMPLES = """
\b
Examples:
  python -m kdhelpers suite
  python -m kdhelpers train dataset=digits model=resnet20 role=teacher
  python -m kdhelpers list runs cifar100
"""
SUITE_EXAMPLES = """
\b
Examples:
  python -m kdhelpers suite --only 04_logit_matching
  python -m kdhelpers suite --profile laptop --seeds 0 1 2 --time-limit 2h
"""
TRAIN_EXAMPLES = """
\b
Examples:
  python -m kdhelpers train dataset=digits model=resnet20 role=teacher
  python -m kdhelpers train model=resnet8 method=lm teacher=resnet20 epochs=6
  python -m kdhelpers train model=resnet8 lr=0.1 --dry-run > RUN.json
  python -m kdhelpers train RUN.json
  torchrun --nproc_per_node=2 -m kdhelpers.training RUN.json
"""
TUNE_EXAMPLES = """
\b
Examples:
  python -m kdhelpers tune --methods "si; lm; dkd" --trials 20 \\
      dataset=cifar100 model=resnet8 teacher=resnet20 epochs=10
  python -m kdhelpers tune --methods "si; dkd published" --space space.yaml \\
      --name mine --workers 2 model=resnet8 teacher=resnet20
"""
LIST_EXAMPLES = """
\b
Examples:
  python -m kdhelpers list notebooks 04
  python -m kdhelpers list methods lm
  python -m kdhelpers list runs cifar100
"""
EXPLORE_EXAMPLES = """
\b
Examples:
  python -m kdhelpers explore
  python -m kdhelpers explore --dataset cifar100 --images 200
  python -m kdhelpers explore student_si_resnet8_digits \\
      student_lm_resnet8_digits --open
"""
COMPARE_EXAMPLE = """
\b
Example:
  python -m kdhelpers compare student_lm_resnet8_digits \\
      student_si_resnet8_digits
"""
NETWORK_EXAMPLES = """
\b
Examples:
  python -m kdhelpers network torchvision:mobilenet_v3_small
  python -m kdhelpers network timm:vit_tiny_patch16_224 patch_size=4
  python -m kdhelpers network my_models:TinyNet width=16 --classes 100
  python -m kdhelpers network "timm:vit_tiny*"
"""
EXPORT_EXAMPLES = """
\b
Examples:
  python -m kdhelpers export student_lm_resnet8_digits
  python -m kdhelpers export student_lm_resnet8_digits --int8
  python -m kdhelpers export student_lm_TinyNet_pets --network nets.py:TinyNet
"""
PREDICT_EXAMPLES = """
\b
Examples:
  python -m kdhelpers predict --model teacher_resnet20_digits \\
      --data a.png b.png
  python -m kdhelpers predict --model teacher_resnet20_digits --data photos/ \\
      --output labels.csv --names
"""
TEACHERS_EXAMPLES = """
\b
Examples:
  python -m kdhelpers teachers resnet56
  python -m kdhelpers teachers --file mine.pth --model resnet20 \\
      --dataset cifar10
"""
