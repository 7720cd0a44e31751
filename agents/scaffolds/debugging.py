"""Which failed candidates are worth a debug: shared by the scaffolds that debug before they go on."""

from __future__ import annotations

from agents.scaffolds.base import Decision
from storage.records import INFRASTRUCTURE, Node, View


def debug(leaf: Node) -> Decision:
    """The decision to debug this leaf."""
    return Decision("debug", (leaf,), f"slot {leaf.slot} failed: {leaf.failure}")


def buggy_leaves(view: View, depth: int) -> list[Node]:
    """The failed candidates that nothing was made from, latest first, but for those at the end of
    ``depth`` debugs in a row."""
    used = {parent for node in view.nodes for parent in node.parents}
    failed = (
        node
        for node in reversed(view.nodes)
        if node.failure not in (None, INFRASTRUCTURE)
        and node.candidate is not None
        and node.candidate not in used
    )
    return [node for node in failed if _debugs(view, node) < depth]


def _debugs(view: View, node: Node) -> int:
    """How many debugs in a row led to this node."""
    if node.operator != "debug" or not node.parents:
        return 0
    parent = view.node(node.parents[0])
    return 1 + (_debugs(view, parent) if parent is not None and parent.slot < node.slot else 0)
