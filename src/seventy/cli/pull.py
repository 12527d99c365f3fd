"""`seventy pull`: a model by its name onto this disk. What run, chat, serve and bench fetch comes this way, too."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from seventy.catalog.names import AmbiguousName, size_text
from seventy.cli._console import plain
from seventy.errors import SeventyError
from seventy.hub import hubs, local, store
from seventy.hub.listing import RemoteFile
from seventy.hub.names import Address, Catalogued, Hosted, LocalFile, Packaged, Reference, resolve, unknown
from seventy.hub.peer import Peer
from seventy.hub.transfer import BrokenOff
from seventy.language import said, t
from seventy.sizes import size

if TYPE_CHECKING:
    from seventy.plan.proposal import Proposal

# What a person is asked about before it is fetched.
_ASK_BYTES = 10_000_000_000
_CONTEXT = 4096
# Where there is no terminal for a bar.
_LINE_EVERY_SECONDS = 30.0
_stderr = plain(stderr=True)


def pull(
    model: Annotated[
        str,
        typer.Argument(
            help="A name (llama-3.3-70b, qwen3:8b), hf:OWNER/REPOSITORY[:QUANT], ms:OWNER/REPOSITORY[:QUANT], "
            "or the https:// address of a .gguf file."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a large download.")] = False,
    context: Annotated[int, typer.Option(min=1, help="Tokens of context that must fit beside the model.")] = _CONTEXT,
    peer: Annotated[
        str | None, typer.Option("--from", help="Another machine whose `seventy serve` has it, such as box:8070.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="SEVENTY_API_KEY", help="With --from: an owner's key of that machine.")
    ] = None,
) -> None:
    """Download a model; a download that broke off goes on where it was."""
    print(_get_from(Peer(peer, api_key), model, yes, context) if peer else get(model, yes, context, look_first=False))


def get(model: str, yes: bool = False, context: int = _CONTEXT, look_first: bool = True) -> Path:
    """Return the model's file; download it with a progress bar on stderr if it is absent.

    `look_first` is for commands that run it: any quant on this disk will do, and a model that seventy cannot run is
    refused. Raises SeventyError. Asks nothing without a terminal.
    """
    try:
        here, wanted = local.look(model, any_quant=look_first)
    except AmbiguousName as error:
        wanted = _ask_which(error)
        here = local.inventory().find(model, wanted)
    if here:
        if not look_first:
            say(t(
                "{label} is here already, in {store}: {size}",
                label=here.label, store=here.store, size=size(here.nbytes),
            ))
        return local.usable(here)
    if isinstance(wanted, Packaged):
        return with_bar(wanted.name, lambda progress: store.pull(wanted.name, progress, say))
    if isinstance(wanted, Address):
        return with_bar(model.rpartition("/")[2], lambda progress: store.pull(wanted.url, progress, say))
    assert not isinstance(wanted, LocalFile), "local.look gives it or refuses it"
    return _fetch(wanted, yes, context, must_run=look_first)


def _get_from(peer: Peer, model: str, yes: bool, context: int) -> Path:
    """The model's file, fetched from another seventy."""
    from seventy.plan.here import this_machine
    from seventy.plan.proposal import proposal_of

    offered = peer.offered(model, say)
    files = offered.variants[0].files
    if taken := store.other_bytes(files):
        raise SeventyError(
            "{taken} is another model of that name; rename it, or delete it (seventy models rm)",
            taken=taken,
        )
    if not store.missing_bytes(files):
        say(t("{model} is here already: {size}", model=offered.model, size=size(offered.variants[0].nbytes)))
        return store.place(files[0])
    wanted = Hosted(peer.kind, offered.repository, file=files[0].path)
    proposal = proposal_of(offered, wanted, this_machine(), context)
    _agree_to(proposal, yes, must_run=False)
    return with_bar(files[0].name, lambda progress: store.pull_files(files, progress, say))


def unattended(model: str, progress: store.Progress) -> local.Local:
    """Find or download a model by its name on a hub, for a server without a person at the terminal.

    Raises SeventyError for paths and addresses, and for models that cannot be run here.
    """
    try:
        elsewhere = isinstance(resolve(model), LocalFile | Address)
    except SeventyError:
        # No name of a hub's; it may still be one of this disk.
        elsewhere = False
    if elsewhere:
        # Nor is it said whether there is such a file.
        raise unknown(model)
    here, wanted = local.look(model, any_quant=False)
    if here:
        local.usable(here)
        return here
    assert not isinstance(wanted, LocalFile | Address), "refused above"
    if isinstance(wanted, Packaged):
        return local.Local(store.pull(wanted.name, progress), local.OURS)
    proposal = _proposal(wanted, _CONTEXT)
    if proposal.problem or not proposal.candidate.fits:
        raise SeventyError(
            "{title} cannot be run here: {problem}",
            title=proposal.title, problem=proposal.problem or proposal.lines[1],
        )
    path = _download(wanted, proposal, lambda files: store.pull_files(files, progress))
    return local.Local(path, local.OURS, (), proposal.offered.repository, proposal.candidate.quant)


def _fetch(wanted: Hosted | Catalogued, yes: bool, context: int, must_run: bool) -> Path:
    from seventy.plan.proposal import TooFewBits

    try:
        proposal = _proposal(wanted, context)
    except TooFewBits as error:
        if not _person():
            raise
        say(error.args[0])
        if not _agreed(t("Fetch {what}?", what=error.quant)):
            raise SeventyError("nothing was fetched") from None
        proposal = _proposal(_with_quant(wanted, error.quant), context)
    _agree_to(proposal, yes, must_run)
    return _download(
        wanted, proposal, lambda files: with_bar(files[0].name, lambda progress: store.pull_files(files, progress, say))
    )


def _agree_to(proposal: "Proposal", yes: bool, must_run: bool) -> None:
    """Say what would be fetched, and ask where it is large or doubtful. Raises SeventyError where it is not wanted."""
    for line in proposal.lines:
        say(line)
    files = proposal.variant.files
    store.check_room(files)
    if proposal.problem and must_run:
        raise SeventyError("{title} cannot be run here: {problem}", title=proposal.title, problem=proposal.problem)
    missing = store.missing_bytes(files)
    doubtful = proposal.problem is not None or not proposal.candidate.fits
    if (missing > _ASK_BYTES or doubtful) and not yes:
        if not _person():
            raise SeventyError(
                "that is a download of {missing} and nobody is here to be asked; to have it all the same: {command} "
                "--yes",
                missing=size(missing), command=proposal.offered.command(proposal.candidate.quant),
            )
        if not _agreed(t("Fetch {what}?", what=size(missing))):
            raise SeventyError("nothing was fetched")


def _proposal(wanted: Hosted | Catalogued, context: int) -> "Proposal":
    from seventy.plan.here import this_machine
    from seventy.plan.proposal import propose

    return propose(wanted, this_machine(), context, say)


def _download(
    wanted: Hosted | Catalogued, proposal: "Proposal", fetch: Callable[[Sequence[RemoteFile]], Path]
) -> Path:
    """What was proposed, from another hub where the first one breaks off."""
    try:
        return fetch(proposal.variant.files)
    except BrokenOff as error:
        same = hubs.elsewhere(wanted, proposal.variant.files) if isinstance(wanted, Catalogued) else []
        if not same:
            raise
        say(t("{error}; going on from {title}", error=error, title=same[0].hub.title))
        return fetch(same)


def _with_quant(wanted: Hosted | Catalogued, quant: str) -> Hosted | Catalogued:
    if isinstance(wanted, Catalogued):
        return Catalogued(wanted.name, quant)
    return replace(wanted, quant=quant, file=None)


def _ask_which(error: AmbiguousName) -> Reference:
    """Which of two models is meant; the error where nobody is there to say."""
    if not _person():
        raise error
    for number, name in enumerate(error.choices, 1):
        listing = f"{name.name}, {name.title}"
        say(t("{number}: {name}, {size}", number=number, name=listing, size=size_text(name)))
    number = typer.prompt(said(t("Which one?")), type=int, default=2, err=True)
    if not 1 <= number <= len(error.choices):
        raise error
    return Catalogued(error.choices[number - 1], None)


def _person() -> bool:
    """Whether someone is at the terminal to be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _agreed(question: str) -> bool:
    return typer.confirm(said(question), err=True)


def with_bar(name: str, fetch: Callable[[store.Progress], Path]) -> Path:
    """Run `fetch` with a progress bar on stderr if that is a terminal, and return its result."""
    if not _stderr.is_terminal:
        return fetch(_Lines(name))
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    bar = Progress(*columns, TimeRemainingColumn(), console=_stderr, transient=True)
    with bar:
        task = bar.add_task(escape(name), total=None, visible=False)
        return fetch(lambda done, total: bar.update(task, completed=done, total=total, visible=True))


class _Lines:
    """Progress as a line now and then, for a log."""

    def __init__(self, name: str) -> None:
        self._name, self._began = name, time.monotonic()
        self._told, self._at_first = self._began, -1

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._at_first < 0:
            self._began, self._at_first = now, done
        if now - self._told < _LINE_EVERY_SECONDS:
            return
        self._told = now
        rate = (done - self._at_first) / max(now - self._began, 1e-3)
        left = t(", {total:.0f} min left", total=(total - done) / rate / 60) if total and rate else ""
        of = t(" of {total}", total=size(total)) if total else ""
        say(t(
            "{name}: {done}{of}, {rate:.1f} MB/s{left}", name=self._name, done=size(done), of=of, rate=rate / 1e6,
            left=left,
        ))


def say(text: str) -> None:
    """Print a line for the person at the terminal, above the progress bar."""
    _stderr.print(said(text), soft_wrap=True)
