"""What the sweep has measured of one network, for the model card of its exported file."""

from eval.scores import results
from eval.tables.store import markdown
from sgflow_jax.run import access

_SAID_ELSEWHERE = ("objective", "network", "class counts")  # the card names the network and its objective


def table(opened: access.Opened) -> str:
    """The rows of exactly these parameters in their run's fid.jsonl, each with its identity, as a Markdown table; "" if
    there are none. InputError for a damaged file."""
    rows = [row for row in results.read(opened.workdir) if row.identity.network == opened.fingerprint]
    columns = {title: cell for title, cell in results.columns().items() if title not in _SAID_ELSEWHERE}
    return markdown(columns, results.in_order(rows)) if rows else ""
