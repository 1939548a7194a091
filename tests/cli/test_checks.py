"""Results of checks and taints at a prompt."""

from tests.cli.test_commands import Shell, shell

__all__ = ["shell"]


def test_a_failed_check_keeps_a_version_from_a_protected_branch_until_it_is_absolved(shell: Shell) -> None:
    (shell.folder / "fruit.csv").write_text("id,price\n1,1.5\n")
    (shell.folder / "worse.csv").write_text("id,price\n1,-1.5\n")
    shell("upsert", "raw/fruit", "fruit.csv", "--key", "id")
    shell("branch", "create", "raw/fruit", "pr")
    shell("upsert", "raw/fruit", "worse.csv", "-b", "pr")
    shell("protect", "add", "raw/fruit", "main")
    assert "no checks were recorded" in shell("checks", "raw/fruit@pr")
    printed = shell("check", "raw/fruit@pr", "positive", "--failed", "--blocking", "-d", "1 of 1")
    assert "raw/fruit@v2: positive failed (error, blocking): 1 of 1" in printed
    for command in ("checks", "show"):
        assert "! tainted by v2: the check positive failed on v2" in shell(command, "raw/fruit@pr")
    assert shell.json("checks", "raw/fruit@pr")["taints"][0]["version_number"] == 2
    assert shell.json("show", "raw/fruit@pr")["checks"][0]["name"] == "positive"
    assert "the content is tainted" in shell("merge", "raw/fruit", "pr", code=5)
    assert "absolved raw/fruit@v2" in shell("absolve", "raw/fruit@pr", "--because", "a refund")
    assert "not tainted" in shell("absolve", "raw/fruit@pr", "--because", "again", code=1)
    assert "main moved to raw/fruit@v2" in shell("merge", "raw/fruit", "pr")


def test_how_a_run_ended_is_recorded(shell: Shell) -> None:
    assert "No version was written by a run 'r1'" in shell("finish-run", "r1", "--failed", code=4)
    assert "Missing option" in shell("finish-run", "r1", code=2)
