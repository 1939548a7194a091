"""Next steps in error messages, spelled for the interface that shows them.

Messages are written with Python calls. The command line and the server replace each call that they know by a command or a
request; every other text stays.
"""

import re
import shlex
from ast import literal_eval
from collections.abc import Mapping
from typing import Literal

Interface = Literal["shell", "rest"]

_TEXT = r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
_STEPS: tuple[tuple[str, str, str], ...] = (
    (rf"registry\.create_dataset\({_TEXT}\)", "dataset-registry dataset create {0}", "POST /v1/datasets"),
    (
        rf"Registry\.open\({_TEXT}, token='…'\)",
        "pass --token or set DATASET_REGISTRY_TOKEN",
        "send Authorization: Bearer …",
    ),
    (rf"registry\.dataset\({_TEXT}\)", "dataset-registry show {0}", "GET /v1/datasets?name={0}"),
    (r"registry\.datasets\(\)", "dataset-registry datasets", "GET /v1/datasets"),
    (r"registry\.users\(\)", "dataset-registry user list", "GET /v1/users"),
    (r"registry\.tokens\(\)", "dataset-registry token list", "GET /v1/tokens"),
    (r"registry\.grants\(\)", "dataset-registry grant list", "GET /v1/grants"),
    (r"registry\.branches\(\)", "dataset-registry registry-branch list", "GET /v1/branches"),
    (r"registry\.adopt\(\)", "dataset-registry adopt", "POST /v1/adopt/apply"),
    (
        rf"registry\.protect\({_TEXT}, {_TEXT}, allow=\[{_TEXT}, …\]\)",
        "dataset-registry protect add {0} {1} --allow {2}",
        "POST /v1/protections",
    ),
    (
        rf"registry\.grant\({_TEXT}, {_TEXT}, {_TEXT}\)",
        "dataset-registry grant add {0} {1} {2}",
        'POST /v1/grants {{"user": "{0}", "permission": "{1}", "name": "{2}"}}',
    ),
    (rf"create_branch\({_TEXT}, {_TEXT}\)", "dataset-registry branch create {dataset} {0} {1}", "POST …/branches"),
    (rf"delete_branch\({_TEXT}\)", "dataset-registry branch delete {dataset} {0}", "DELETE …/branches/{0}"),
    (rf"delete_tag\({_TEXT}\)", "dataset-registry tag delete {dataset} {0}", "DELETE …/tags/{0}"),
    (r"\btree\(\), in a shell with: (?=dataset-registry)", "", "GET …/versions, in a shell with: "),
    (r"\btree\(\)", "dataset-registry log {dataset} --all", "GET …/versions"),
    (rf"(?<!\.)\blog\({_TEXT}\)", "dataset-registry log {dataset}@{0}", "GET …/log?ref={0}"),
    (
        rf"(?<!\.)\bconflicts\({_TEXT}, {_TEXT}\)",
        "dataset-registry conflicts {dataset} {0} --into {1}",
        "POST …/merges/conflicts",
    ),
    (r"allow_moved_inputs=True", "--allow-moved-inputs", '"allow_moved_inputs": true'),
    (r"force=True", "--force", '"force": true'),
    (r"dataset\.revert\(\)", "dataset-registry revert {dataset} REF", 'POST …/merges with "how": "revert"'),
    (rf"draft\.remove\({_TEXT}\)", "dataset-registry rm {dataset} {0}", "'removed' of the commit"),
    (r"overwrite=True", "--overwrite", '"overwrite": true'),
    (rf"expect={_TEXT}", "--expect {0}", 'If-Match: "{0}"'),
    (r"format='binary'", "--format binary", '"format": "binary"'),
)


def spelled(message: str, interface: Interface, fields: Mapping[str, object]) -> str:
    """The message with its next steps for an interface; `fields` are those of the error."""
    dataset = str(fields.get("dataset") or "DATASET")
    for pattern, shell, rest in _STEPS:
        step = shell if interface == "shell" else rest

        def replace(found: re.Match[str], step: str = step) -> str:
            texts = [str(literal_eval(text)) for text in found.groups()]
            if interface == "shell":
                return step.format(*map(shlex.quote, texts), dataset=shlex.quote(dataset))
            return step.format(*texts, dataset=dataset)

        message = re.sub(pattern, replace, message)
    return message
