"""The live page of a run: the report, made again whenever the folder has changed, below a line that says how it stands.

The page asks its own server, and the browser is told to ask no other: see `LIVE_POLICY`.
"""

from __future__ import annotations

from html import escape

from coterie.report.asset_files import PLOTS, read_asset, script, style

LIVE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the pages: scripts and styles that stand in them, requests to this server alone."""


def live_page(name: str) -> str:
    """Return the page that a browser opens: it asks for `state` and, where that has changed, for `page`."""
    scripts = "".join(script(read_asset(name)) for name in (*PLOTS, "page.js", "live.js"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(name)}</title>\n{style()}\n<style id=style>{read_asset('live.css')}</style>\n"
        f"{script(read_asset('theme.js'))}\n</head>\n<body>\n"
        "<div id=live role=status data-kind=waiting><b>Reading the folder.</b><code></code><time></time></div>\n"
        "<noscript><p>Without scripts this page cannot update itself: <a href=page>the report as of now</a>.</p>"
        f"</noscript>\n<main id=report></main>\n{scripts}\n</body>\n</html>\n"
    )
