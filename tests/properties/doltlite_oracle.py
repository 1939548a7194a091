"""Merges by Dolt's rules, as another engine does them: `doltlite` in a process of its own.

Reads cases as JSON lines from standard input, and writes their results: the columns and rows of the merged table, and the keys in
conflict. It must be imported before `sqlite3`, so the suite does not import it.
"""

import json
import sys
from typing import Any


def merged(case: dict[str, Any]) -> dict[str, Any]:
    """The merge of one case: statements for the base, ours and theirs."""
    import sqlite3

    connection = sqlite3.connect(":memory:", isolation_level=None)

    def run(statement: str, values: list[Any] | None = None) -> list[Any]:
        return connection.execute(statement, values or []).fetchall()

    try:
        for step, before in (
            ("base", None),
            ("ours", "SELECT dolt_branch('theirs')"),
            ("theirs", "SELECT dolt_checkout('theirs')"),
        ):
            if before:
                run(before)
            for statement, values in case[step]:
                run(statement, values)
            run("SELECT dolt_commit('-A', '--allow-empty', '-m', ?)", [step])
        run("SELECT dolt_checkout('main')")
        run("BEGIN")
        try:
            run("SELECT dolt_merge('theirs')")
        except sqlite3.OperationalError as error:
            if "conflict" not in str(error):
                return {"error": str(error)}
        conflicts = set()
        if run("SELECT * FROM dolt_conflicts"):
            cursor = connection.execute("SELECT * FROM dolt_conflicts_t")
            names = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                found = dict(zip(names, row, strict=True))
                keys = [found.get(f"{side}_id") for side in ("our", "their", "base")]
                conflicts.add(next(key for key in keys if key is not None))
        cursor = connection.execute("SELECT * FROM t ORDER BY id")
        columns = [column[0] for column in cursor.description]
        return {"columns": columns, "rows": cursor.fetchall(), "conflicts": sorted(conflicts)}
    except sqlite3.Error as error:
        return {"error": str(error)}
    finally:
        connection.close()


def main() -> None:
    import doltlite  # noqa: F401  # before sqlite3

    for line in sys.stdin:
        print(json.dumps(merged(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
