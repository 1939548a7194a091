"""Merges, conflicts and row edits at a prompt."""

from tests.cli.test_commands import Shell, shell

__all__ = ["shell"]


def _fruit(shell: Shell) -> None:
    files = {
        "fruit.csv": "id,price,name\n1,1.5,apple\n2,2.5,pear\n3,3.5,plum\n",
        "theirs.csv": "id,price\n1,1.75\n4,9.0\n",
        "ours.csv": "id,price\n1,1.99\n",
    }
    for name, text in files.items():
        (shell.folder / name).write_text(text)
    shell("upsert", "raw/fruit", "fruit.csv", "--key", "id", "-m", "first")
    shell("branch", "create", "raw/fruit", "pr")
    shell("upsert", "raw/fruit", "theirs.csv", "-b", "pr")


def test_rows_are_appended_upserted_and_deleted(shell: Shell) -> None:
    _fruit(shell)
    assert "raw/fruit@v3 on main" in shell("delete-rows", "raw/fruit", "--where", "price > 3")
    (shell.folder / "more.csv").write_text("id,price,name\n7,7.5,fig\n")
    assert "raw/fruit@v4 on main" in shell("append", "raw/fruit", "more.csv", "-m", "figs")
    assert "which the table has already" not in shell("log", "raw/fruit")
    assert "already" in shell("append", "raw/fruit", "more.csv", code=1)
    assert shell("get", "raw/fruit", "--to", "-")[:4] == "PAR1"


def test_a_diff_shows_counts_and_the_first_rows(shell: Shell) -> None:
    _fruit(shell)
    printed = shell("diff", "raw/fruit", "main..pr")
    assert "data: +1 −0 Δ1 rows, 2 unchanged; cells: price 1" in printed
    assert "1.5 → 1.75" in printed
    assert "mango" not in printed
    assert shell("diff", "raw/fruit", "main", "pr", "--format", "csv").splitlines() == [
        '"change","id","before_price","after_price","before_name","after_name"',
        '"changed",1,1.5,1.75,"apple","apple"',
        '"added",4,,9,,',
    ]
    assert shell.json("diff", "raw/fruit", "main", "pr")["rows"]["data"]["cells"] == {"price": 1}
    shell("diff", "raw/fruit", "main", "pr", "--format", "parquet", "-o", "rows.parquet")
    assert (shell.folder / "rows.parquet").read_bytes()[:4] == b"PAR1"


def test_conflicts_are_written_edited_and_resolved(shell: Shell) -> None:
    _fruit(shell)
    shell("upsert", "raw/fruit", "ours.csv")
    assert "! data.price: both changed in 1 row" in shell("merge", "raw/fruit", "pr", "--dry-run")
    refused = shell("merge", "raw/fruit", "pr", code=5)
    assert "dataset-registry conflicts raw/fruit v2 --into main" in refused
    plan = shell.json("merge", "raw/fruit", "pr", "--dry-run")["merge"]["plan"]
    assert f"--plan {plan}" in shell("conflicts", "raw/fruit", "pr", "-o", "rows.csv")
    written = (shell.folder / "rows.csv").read_text()
    assert written.splitlines()[1] == '"both changed","price",1,1.5,1.99,1.75,"apple","apple","apple",'
    (shell.folder / "rows.csv").write_text(written.rstrip("\n") + "theirs\n")
    merged = shell("resolve", "raw/fruit", "pr", "rows.csv", "--plan", plan, "-m", "Merge pr")
    assert "main is now raw/fruit@v4" in merged
    assert "~ data merged: +1 −0 Δ1 rows" in merged
    assert "Merge pr" in shell("log", "raw/fruit")
    assert "up to date" in shell("merge", "raw/fruit", "pr")
    assert "main is now raw/fruit@v5" in shell("revert", "raw/fruit", "main")
    assert "main is now raw/fruit@v6" in shell("cherry-pick", "raw/fruit", "v4")


def test_a_strategy_decides_at_a_prompt(shell: Shell) -> None:
    _fruit(shell)
    shell("upsert", "raw/fruit", "ours.csv")
    assert "Unknown strategy" in shell("merge", "raw/fruit", "pr", "--strategy", "mine", code=1)
    merged = shell("merge", "raw/fruit", "pr", "-s", "ours", "-s", "theirs:column=price")
    assert "main is now raw/fruit@v4" in merged


def test_a_branch_is_published_and_its_consistency_checked(shell: Shell) -> None:
    _fruit(shell)
    planned = shell("publish", "pr", "--dry-run")
    assert "raw/fruit: v2 into main (v1, common ancestor v1): fast-forward" in planned
    assert "1 dataset to publish" in planned
    assert "main is now raw/fruit@v2" in shell("publish", "pr")
    assert "main is up to date" in shell("publish", "pr")
    assert "belong together" in shell("consistent")
    assert "No version was written by a run" in shell("run", "nothing", code=4)
    assert "No version was written by a run" in shell("revert-run", "nothing", code=4)
