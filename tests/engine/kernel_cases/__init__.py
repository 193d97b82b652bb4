"""Arguments for every pure operation, right and wrong."""

from tests.engine.kernel_cases.algebra import algebra
from tests.engine.kernel_cases.arguments import Case
from tests.engine.kernel_cases.creation import creation
from tests.engine.kernel_cases.elementwise import elementwise, operators
from tests.engine.kernel_cases.indexing import indexing
from tests.engine.kernel_cases.layout import layout
from tests.engine.kernel_cases.reductions import reductions

__all__ = ["Case", "all_cases"]


def all_cases() -> dict[str, list[Case]]:
    """The arguments of each operation."""
    cases: dict[str, list[Case]] = {}
    for family in (operators(), elementwise(), reductions(), layout(), indexing(), algebra(), creation()):
        for name, more in family.items():
            cases.setdefault(name, []).extend(more)
    return cases
