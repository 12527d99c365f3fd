"""Keeps an engine on every machine of the cluster, and the front's list of them true."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seventy.cluster import key as keys
from seventy.cluster import node
from seventy.cluster.engine import Engine
from seventy.cluster.front import Front, Machine
from seventy.errors import SeventyError
from seventy.language import t
from seventy.version import __version__

_LOOK_SECONDS = 2.0
_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the engines serve: arguments of `seventy serve`, users' keys, and on how many machines (None for all)."""

    arguments: list[str]
    user_keys: str
    replicas: int | None


async def keep(ray: Any, own: node.Node, front: Front, wanted: Wanted, say: Callable[[str], None]) -> None:
    """Look for machines that join or leave, and keep an engine on each; never returns."""
    context, kept, told = keys.client_context(node.folder()), dict[str, asyncio.Task[None]](), set[str]()

    async def keep_one(member: node.Member) -> None:
        """An engine on a machine, started again when it ends."""
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(member.id, soft=False)
        while True:
            try:
                actor = ray.remote(Engine).options(num_cpus=0, scheduling_strategy=strategy).remote()
                port, said = await actor.start.remote(wanted.arguments, wanted.user_keys, member.address, own.port)
                if port:
                    machine = Machine(member.address, f"https://{member.address}:{port}", context)
                    front.add(machine)
                    say(t("{address} answers", address=member.address))
                    try:
                        said = await actor.ended.remote()
                    finally:
                        await front.remove(machine)
            except ray.exceptions.RayError as error:
                said = type(error).__name__
            say(t("{address} answers no longer: {said}", address=member.address, said=said))
            await asyncio.sleep(_PAUSE_SECONDS)

    try:
        while True:
            try:
                members = await asyncio.to_thread(node.members, ray)
            except ray.exceptions.RayError as error:
                place = f"{own.head}:{own.port}"
                raise SeventyError("the cluster at {head} does not answer: {error}", head=place, error=error) from None
            addresses = {each.id: each.address for each in members}
            there = {each.id: each for each in members if each.is_alive and each.version == __version__}
            for each in members:
                if each.is_alive and each.version != __version__ and each.id not in told:
                    told.add(each.id)
                    say(t("{address} has seventy {version} and is not used", address=each.address,
                          version=each.version or "?"))  # fmt: skip
            for gone in kept.keys() - there.keys():
                kept.pop(gone).cancel()
                say(t("{address} has left the cluster", address=addresses[gone]))
            for new in there.keys() - kept.keys():
                if wanted.replicas is None or len(kept) < wanted.replicas:
                    kept[new] = asyncio.create_task(keep_one(there[new]))
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        for task in kept.values():
            task.cancel()
