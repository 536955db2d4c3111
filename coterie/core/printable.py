"""Text of any origin, as a terminal can show it on one line."""


def printable(text: str) -> str:
    r"""Return a text with escapes for characters that a terminal would not show, or would obey.

    >>> printable("Süd"), printable("a\nround 7: all is well"), printable("\udcff")
    ('Süd', 'a\\nround 7: all is well', '\\udcff')
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
