"""axe-core in the page, which finds what WCAG 2 forbids at levels A and AA: ``python -m tests.browser.axe`` fetches it.

A developer's tool (MPL-2.0): it is never part of what is served or shipped.
"""

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests import node_packages

WANTED = Path(__file__).with_name("package.json")
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
RUN = """async (rules) => {
  const {violations} = await axe.run(document, {
    runOnly: {type: 'tag', values: rules}, resultTypes: ['violations'], elementRef: false,
  });
  return violations.flatMap((each) => each.nodes.map((node) =>
    `${each.id} at ${node.target.join(' ')}: ${node.any.concat(node.all, node.none).map((check) => check.message)}`));
}"""


def script() -> Path:
    """Return axe-core's one file. Skips where npm cannot fetch it."""
    return node_packages.installed(WANTED, "axe") / "node_modules/axe-core/axe.min.js"


def violations(page: Page) -> list[str]:
    """Return what the page has that WCAG 2 A and AA forbid, a line for each element."""
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=script())
    found: list[str] = page.evaluate(RUN, list(RULES))
    return found


if __name__ == "__main__":
    try:
        print(f"axe-core: {script()}")
    except pytest.skip.Exception as reason:
        print(f"LEFT OUT, the tests of accessibility: {reason}.")
