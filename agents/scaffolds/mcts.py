"""`mcts`: a search tree over the agent's nodes, descended by UCT (arXiv 2507.02554).

The tree, its visits and its values are read from the view each time. A node's parent is the node of its
first parent; drafts are the children of a root. What is in flight cannot be seen: see `Mcts`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from agents.scaffolds.base import Decision, check_positive
from agents.scaffolds.debugging import buggy_leaves, debug
from agents.scaffolds.values import values
from storage.records import INFRASTRUCTURE, Node, View


@dataclass(frozen=True)
class Mcts:
    """Descends from the root by UCT to the first node with fewer than ``children`` children and makes it
    one more: a draft at the root, an improvement elsewhere. A buggy leaf is debugged before.

    UCT is mean value + ``c`` * sqrt(ln(visits of the parent) / visits), over the subtree, with `values`
    of the scores; whatever failed counts as the minimum, 0, and is not improved. The published defaults
    are c = .25, 5 children and debug depth 20.

    With m slots in flight, m + 1 decisions are made on views that lack each other's results and would
    all be the same. So each takes one of m + 1 places at random: in place j it leaves j buggy leaves
    to others and counts j descents as made, visits without values (as WU-UCT does, arXiv 1810.11755).
    Every leaf is then taken about once by the m + 1 together, and none is starved; ties are broken
    by ``rng``, too.
    """

    c: float = 0.25
    children: int = 5
    debug_depth: int = 20

    def __post_init__(self) -> None:
        check_positive(children=self.children)

    def next(self, view: View, rng: random.Random) -> Decision:
        place, buggy = rng.randint(0, view.in_flight), buggy_leaves(view, self.debug_depth)
        if place < len(buggy):
            return debug(buggy[place])
        root = grow(view, self.children)
        for _ in range(place - len(buggy)):
            descend(root, self.c, rng).wait()
        leaf = descend(root, self.c, rng)
        if leaf.node is None:
            return Decision("draft", (), f"child {len(leaf.children) + 1} of the root")
        return Decision("improve", (leaf.node,), _reason(leaf, leaf.node, self.c))


@dataclass(eq=False)
class Branch:
    """A node of the tree with what is known of its subtree; ``room`` is for how many more children."""

    node: Node | None  # None: the root
    parent: Branch | None
    room: int
    children: list[Branch] = field(default_factory=list)
    visits: int = 0  # nodes in the subtree
    waiting: int = 0  # those presumed to be in flight
    total: float = 0.0  # of their values
    open: bool = True  # whether the subtree has room

    def uct(self, c: float) -> float:
        """The upper confidence bound; the root has its mean value."""
        mean = self.total / self.visits if self.visits else 0.0
        if self.parent is None:
            return mean
        seen = self.visits + self.waiting
        return mean + c * math.sqrt(math.log(self.parent.visits + self.parent.waiting) / seen)

    def path(self) -> Iterator[Branch]:
        """This branch and those above it."""
        here: Branch | None = self
        while here is not None:
            yield here
            here = here.parent

    def wait(self) -> None:
        """Presume that a child of this one is being made."""
        self.room -= 1
        for branch in self.path():
            branch.waiting += 1
        self.settle()

    def settle(self) -> None:
        """Bring `open` up to date, here and above."""
        for branch in self.path():
            branch.open = branch.room > 0 or any(child.open for child in branch.children)


def grow(view: View, children: int) -> Branch:
    """The tree of a view, its root.

    A candidate proposed again is a visit to the parent of that proposal and grows no subtree of its own:
    what is made from it hangs under its first node. Infrastructure failures are nobody's visit.
    """
    root, first, worth = Branch(None, None, children), dict[int, Branch](), values(view.nodes)
    for node in view.nodes:
        if node.failure == INFRASTRUCTURE:
            continue
        new = node.candidate is not None and node.candidate not in first
        parent = first.get(node.parents[0], root) if node.parents else root
        branch = Branch(node, parent, children if new and node.score is not None else 0)
        if new and node.candidate is not None:
            first[node.candidate] = branch
        _attach(branch, parent, worth[node.slot])
    return root


def _attach(branch: Branch, parent: Branch, value: float) -> None:
    parent.children.append(branch)
    parent.room -= 1
    branch.settle()
    for above in branch.path():
        above.visits += 1
        above.total += value


def descend(root: Branch, c: float, rng: random.Random) -> Branch:
    """The branch to give a child: the first with room on the way of the highest UCT. The root where the
    whole tree has none."""
    here = root
    while here.room <= 0 and here.open:
        here = max((x for x in here.children if x.open), key=lambda x: (x.uct(c), rng.random()))
    return here


def _reason(branch: Branch, node: Node, c: float) -> str:
    value = branch.total / branch.visits
    return (
        f"slot {node.slot} is where UCT leads: mean value {value:.4f} over {branch.visits} nodes, "
        f"UCT {branch.uct(c):.4f}, {len(branch.children)} children so far"
    )
