"""Files that are not what their name says: a web page, a pointer of Git LFS, an empty file, an archive."""

import re

HEAD_BYTES = 1024
AGAIN = "download it again"
KINDS = (  # beginning of the content, what that is, remedy
    (rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body|script)", "a web page", AGAIN),
    (rb"\s*<\?xml.*<(error|html)", "a web page", AGAIN),
    (rb"\s*\{\s*\"(error|message|detail)\"", "the error message of a server", AGAIN),
    (rb"version https://git-lfs", "a pointer of Git LFS", "run `git lfs pull` in its repository"),
)


def impostor(content: bytes) -> tuple[str, str] | None:
    """(what the content is, the remedy) if it is not data at all; the first `HEAD_BYTES` are enough."""
    if not content:
        return "an empty file", "copy or download it again"
    head = content[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")
    for beginning, kind, remedy in KINDS:
        if re.match(beginning, head, re.IGNORECASE | re.DOTALL):
            return kind, remedy
    return None
