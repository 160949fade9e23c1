"""What a mutant changes: cosmic-ray's operators, except those that show little, and two more.

An arithmetic operator is replaced by one other, not by all eleven: most of those fail at once and
would only raise the figure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import parso
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.operators.provider import OperatorProvider

Span = tuple[tuple[int, int], tuple[int, int]]

ARITHMETIC = {
    "Add": "Sub",
    "Sub": "Add",
    "Mul": "FloorDiv",
    "Div": "Mul",
    "FloorDiv": "Mul",
    "Mod": "FloorDiv",
    "Pow": "Mul",
    "BitOr": "BitAnd",
    "BitAnd": "BitOr",
    "BitXor": "BitOr",
    "LShift": "RShift",
    "RShift": "LShift",
}
COMPARISONS = {
    "Eq": "NotEq LtE GtE",
    "NotEq": "Eq Lt Gt",
    "Lt": "LtE GtE",
    "LtE": "Lt Gt",
    "Gt": "GtE LtE",
    "GtE": "Gt Lt",
    "Is": "IsNot",
    "IsNot": "Is",
}
FROM_THE_LIBRARY = (
    *(f"ReplaceBinaryOperator_{a}_{b}" for a, b in ARITHMETIC.items()),
    *(f"ReplaceComparisonOperator_{a}_{b}" for a, to in COMPARISONS.items() for b in to.split()),
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceUnaryOperator_Delete_USub",
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ExceptionReplacer",
    "NumberReplacer",
    "RemoveDecorator",
    "ZeroIterationForLoop",
)


class DropOperand(Operator):  # type: ignore[misc]
    """Leaves one operand of ``and`` or ``or`` away: a condition that no test needs survives it."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        """One position for each operand."""
        if node.type in ("and_test", "or_test"):
            for operand in node.children[::2]:
                yield (operand.start_pos, operand.end_pos)

    def mutate(self, node: Any, index: int) -> Any:
        """The same test without operand ``index``."""
        operands = [child.get_code(include_prefix=False) for child in node.children[::2]]
        kept = operands[:index] + operands[index + 1 :]
        word = node.children[1].value
        return parso.parse(node.get_first_leaf().prefix + f" {word} ".join(kept))

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Both operands, each dropped once."""
        return (Example("a and b", "b"), Example("a or b", "a", occurrence=1))


class FixCondition(Operator):  # type: ignore[misc]
    """Puts True or False where a condition stands: a branch that no test needs survives it."""

    VALUES = ("True", "False")

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        """Two positions for each condition, one for each value."""
        for place in _conditions(node):
            condition = node.children[place]
            for _ in self.VALUES:
                yield (condition.start_pos, condition.end_pos)

    def mutate(self, node: Any, index: int) -> Any:
        """The node with the condition replaced, in place."""
        place = _conditions(node)[index // len(self.VALUES)]
        value = self.VALUES[index % len(self.VALUES)]
        prefix = node.children[place].get_first_leaf().prefix or " "
        node.children[place] = parso.parse(prefix + value)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """A statement, an expression and a filter."""
        return (
            Example("if a: b", "if True: b"),
            Example("x = b if a else c", "x = b if False else c", occurrence=1),
            Example("x = [b for b in c if d]", "x = [b for b in c if True]"),
        )


def _conditions(node: Any) -> list[int]:
    """Where conditions stand among the children of an ``if`` in any of its forms."""
    if node.type == "if_stmt":
        children = enumerate(node.children)
        return [i + 1 for i, child in children if getattr(child, "value", "") in ("if", "elif")]
    if node.type == "comp_if":
        return [1]
    # `b if a else c`
    return [2] if node.type == "test" else []


def operators() -> dict[str, Operator]:
    """Every operator in use, by name."""
    library = OperatorProvider()
    found = {name: library[name]() for name in FROM_THE_LIBRARY}
    return found | {c.__name__: c() for c in (DropOperand, FixCondition)}
