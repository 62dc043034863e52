"""A case of bad input, and the commands on the run of `line_run`."""

import re
from typing import NamedTuple

# The fields of the run in {line}, which is that of the fixture line_run; ids omit them.
FIELDS = (
    " --config.data.batch_size=16 --config.model.width=8 --config.model.depth=1 --config.objective.warmup_steps=0"
    " --config.objective.ramp_steps=0 --config.train.num_steps=6"
)
LINE = f"main.py --config=configs/mixture1d.py --workdir={{line}}{FIELDS}"
NEW = LINE.replace("{line}", "{}/run")


class Case(NamedTuple):
    """A command, and the parts of its error in order, with " ... " between them.

    {} in the command is the test's own directory; {line} and {digits} are runs in it. files: contents by path, written
    there first; None is a directory.
    """

    command: str
    says: str
    files: dict[str, str | bytes | None] = {}

    def id(self) -> str:
        return " ".join(
            [self.command.replace(FIELDS, ""), *(f"({name}: {content!r:.20})" for name, content in self.files.items())]
        )

    def is_told(self, stderr: str) -> bool:
        """Whether stderr is one line, an error, with the parts in order."""
        parts = ".*".join(map(re.escape, self.says.split(" ... ")))
        return bool(re.fullmatch("error: .*\n", stderr) and re.search(parts, stderr))


class Outcome(NamedTuple):
    """What a command did: its exit code, its stderr, and the paths that it added, removed or changed."""

    code: int
    stderr: str
    changed: list[str]
