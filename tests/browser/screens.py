"""The looks in which a page is tested: a phone, the dark scheme."""


def phone(page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})


def dark(page) -> None:
    page.emulate_media(color_scheme="dark")


def scrolls_sideways(page) -> bool:
    """Whether the page is wider than its window; a part that scrolls by itself does not count."""
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def brightness(page, selector: str = "body", of: str = "background-color") -> float:
    """The mean of red, green and blue of a CSS colour, 0 to 255."""
    script = "([selector, of]) => getComputedStyle(document.querySelector(selector)).getPropertyValue(of)"
    channels = page.evaluate(script, [selector, of]).partition("(")[2].strip(")").split(",")[:3]
    return sum(map(float, channels)) / 3
