"""The registry of data sets: `DATASETS` maps a name to its `Source`. A new data set is one more entry."""

from collections.abc import Callable
from dataclasses import dataclass

from kdhelpers.data.readers.arrays import PickleLayout, Raw
from kdhelpers.data.readers.digits import read_digits
from kdhelpers.registry import Registry

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and standard deviation per channel


@dataclass(frozen=True)
class Archive:
    url: str
    md5: str


@dataclass(frozen=True)
class Source:
    """The facts of a data set, and where its images come from: `read`, files in one of the layouts, or a download."""

    description: str
    image_size: int | None = None  # None: the images' own
    classes: int | None = None
    statistics: Statistics | None = None  # published; None: computed from the training split
    read: Callable[[int | None], Raw] | None = None  # makes the data set in Python, for an image size
    pickles: PickleLayout | None = None
    folders: tuple[str, ...] = ()  # names of class folders besides the data set's own
    words: dict[str, str] | None = None  # class folder -> class name
    counts: dict[str, int] | None = None  # official number of images per split
    fingerprints: dict[str, str] | None = None  # official content per split, see `dataset.fingerprint`
    parquet: dict[str, str] | None = None  # split -> url
    archive: Archive | None = None
    imagenet_leak: str | None = None  # why ImageNet weights were trained on its test images


CIFAR_URL = "https://www.cs.toronto.edu/~kriz"


def _parquet(folder: str) -> dict[str, str]:
    url = f"https://huggingface.co/datasets/uoft-cs/{folder}"
    return {split: f"{url}/{split}-00000-of-00001.parquet" for split in ("train", "test")}


DATASETS = Registry(
    "DATASETS",
    lambda entry: isinstance(entry, Source),
    "write Source(description, read=function)",
    {
        "digits": Source("scikit-learn's 1,797 handwritten digits, tinted, 16 px; embedded", 16, 10, read=read_digits),
        "cifar10": Source(
            "60,000 photographs of 10 classes, 32 px",
            classes=10,
            statistics=((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            pickles=PickleLayout(
                "cifar-10-batches-py",
                train={
                    "data_batch_1": "c99cafc152244af753f735de768cd75f",
                    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                    "data_batch_4": "634d18415352ddfa80567beed471001a",
                    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                },
                test={"test_batch": "40351d587109b95175f43aff81a1287e"},
                meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
                labels="labels",
                names="label_names",
            ),
            counts={"train": 50000, "test": 10000},
            fingerprints={"test": "c570203eec5823a6c731546f5c4e31127f0555462fa8fcb643b37d5e4372b070"},
            parquet=_parquet("cifar10/resolve/main/plain_text"),
            archive=Archive(f"{CIFAR_URL}/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
        ),
        "cifar100": Source(
            "60,000 photographs of 100 classes in 20 superclasses, 32 px",
            classes=100,
            statistics=((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
            pickles=PickleLayout(
                "cifar-100-python",
                train={"train": "16019d7e3df5f24257cddd939b257f8d"},
                test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
                meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
                labels="fine_labels",
                names="fine_label_names",
                superclass_labels="coarse_labels",
                superclass_names="coarse_label_names",
            ),
            counts={"train": 50000, "test": 10000},
            fingerprints={
                "train": "1401fcf5721d8cb380545ea0ecc9d204cad4009135a675855838151d32ef020b",
                "test": "cc6a995ef2ed37194ce3e7d0f50a670b98ac6a0d437dbd69f8a811951cc865e7",
            },
            parquet=_parquet("cifar100/resolve/main/cifar100"),
            archive=Archive(f"{CIFAR_URL}/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
        ),
        "imagenette": Source(
            "13,394 photographs of 10 ImageNet classes, 96 px by default; its val is the test split",
            image_size=96,
            classes=10,
            statistics=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            folders=("imagenette2", "imagenette2-320", "imagenette2-160"),
            words={
                "n01440764": "tench",
                "n02102040": "English springer",
                "n02979186": "cassette player",
                "n03000684": "chain saw",
                "n03028079": "church",
                "n03394916": "French horn",
                "n03417042": "garbage truck",
                "n03425413": "gas pump",
                "n03445777": "golf ball",
                "n03888257": "parachute",
            },
            counts={"train": 9469, "test": 3925},
            archive=Archive(
                "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3"
            ),
            imagenet_leak="Imagenette re-splits images of ImageNet, so its test images were very probably trained on",
        ),
    },
)
