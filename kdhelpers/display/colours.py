"""One colour and one marker for each method, the same in every picture of runs.

The hue is that of the method's family. Lightness and marker distinguish its members, for colour-blind readers too.
"""

import re
import zlib
from typing import NamedTuple

from kdhelpers.methods import METHODS

NO_TEACHER, LOGITS, EMBEDDINGS, MAPS = "no teacher", "logits", "embeddings", "feature maps"
VIEWS, OWN = "several views or mixed images", "your own methods"
FAMILIES = {
    NO_TEACHER: {"si": "#4D4D4D", "ls": "#8C8C8C", "supcon": "#6B7785"},
    LOGITS: {
        **{"lm": "#0465AF", "dkd": "#139DC0", "dist": "#2B2A8E", "ttm": "#006B98", "wttm": "#558AEE"},
        **{"rld": "#003E71", "nkd": "#026E89", "luminet": "#7382ED", "normkd": "#03425F", "wsld": "#2C5DBD"},
        **{"ctkd": "#2E91EA", "lm_standardized": "#004557", "dkd_standardized": "#4C55BC"},
    },
    EMBEDDINGS: {"crd": "#04764C", "crd_inbatch": "#52A43F", "rkd": "#034A2E", "pkt": "#227702"},
    MAPS: {
        **{"hints": "#B95201", "at": "#E36558", "nst": "#5C3A02", "vid": "#AB5E00", "ickd": "#E26943"},
        **{"sp": "#6D2D00", "reviewkd": "#C0453B", "catkd": "#C68206", "sdd": "#633502", "simkd": "#BF4922"},
    },
    VIEWS: {
        **{"supcrd": "#993582", "conkd": "#B56ACC", "cocord": "#6C0059"},
        **{"mlkd": "#883E9D", "lm_unlabelled": "#C962AF", "lm_mixed": "#5D0F71"},
    },
}
OWN_COLOURS = ("#A6192E", "#5E6B00", "#00737A", "#8A6D00", "#7A2E3A", "#8F8A00")  # hues that no family has
TEACHER, CHANCE = "#000000", "#B8B8B8"
MARKERS = "osv^D"  # a new one after three members, whose lightnesses differ


class Look(NamedTuple):
    """How a picture shows a method: colour, marker, family."""

    colour: str
    marker: str
    family: str


LOOKS = {
    method: Look(colour, MARKERS[place // 3], family)
    for family, colours in FAMILIES.items()
    for place, (method, colour) in enumerate(colours.items())
}


def look_of(method: str) -> Look:
    """The look of a method's name in `METHODS`. One that is not of this package has a look that its name determines."""
    place = zlib.crc32(method.encode())
    own = Look(OWN_COLOURS[place % len(OWN_COLOURS)], MARKERS[place // len(OWN_COLOURS) % len(MARKERS)], OWN)
    return LOOKS.get(method, own)


def method_of(label: str) -> str:
    """The method whose title begins a label such as `KD (T=2.0)` or `resnet8 · KD (n = 3)`; "" for any other label.

    The title may stand without its bracket: `CE, jittered images`.
    """
    text = label.rpartition(" · ")[2]
    whole = {getattr(method, "title", name.upper()): name for name, method in METHODS.items()}
    titles = {title.partition(" (")[0]: name for title, name in whole.items()} | whole
    fitting = [title for title in titles if re.match(re.escape(title) + r"(?!\w)", text)]
    return titles[max(fitting, key=len)] if fitting else ""


def colour_of(label: str, default: str = OWN_COLOURS[0]) -> str:
    """The colour of a run's label: that of its method, black for a teacher, grey for chance, else `default`."""
    text = label.rpartition(" · ")[2]
    if text.startswith(("teacher", "untrained teacher")):
        return TEACHER
    if text.startswith("chance"):
        return CHANCE
    method = method_of(label)
    return look_of(method).colour if method else default
