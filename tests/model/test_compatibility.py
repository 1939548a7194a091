"""What the compatibility policies forbid of a change of columns."""

import pytest

from dataset_registry.errors import InputError
from dataset_registry.model.compatibility import POLICIES, checked_policy, incompatibilities
from dataset_registry.model.schema import Column

A, B = Column("a", "int32"), Column("b", "string")
WIDE, REQUIRED = Column("a", "int64"), Column("b", "string", nullable=False)

CHANGES = {
    "nothing": ([A, B], [A, B], {"backward", "forward", "full", "exact"}),
    "a nullable column added": ([A], [A, B], {"backward", "forward", "full"}),
    "a column that is not null added": ([A], [A, REQUIRED], {"forward"}),
    "a column dropped": ([A, B], [A], {"backward"}),
    "a type widened": ([A], [WIDE], {"backward"}),
    "a type narrowed": ([WIDE], [A], {"forward"}),
    "a type replaced": ([A], [Column("a", "string")], set()),
    "made not null": ([B], [REQUIRED], {"forward"}),
    "made nullable": ([REQUIRED], [B], {"backward"}),
    "another order": ([A, B], [B, A], {"backward", "forward", "full"}),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_policy_allows_the_changes_that_it_says(change: str, policy: str) -> None:
    before, after, allowed = CHANGES[change]
    found = incompatibilities(before, after, checked_policy(policy))
    assert (not found) == (policy in allowed), found


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(InputError, match="backward, forward, full, exact"):
        checked_policy("sideways")
