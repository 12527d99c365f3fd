"""Reads machines as people describe them: "Z440 + E5-2680 v4 一条64G", "HP Z440; E5-2680 v4; 1x64@2400".

Platform, CPU and memory may stand in any order and in English or Chinese; several machines may follow each other. This
says what is meant, not whether it can be: plan/physics.py does that.
"""

import math
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from itertools import pairwise

from seventy.catalog.cpus import Cpu, all_cpus, find_cpu
from seventy.catalog.platforms import Platform, all_platforms
from seventy.errors import SeventyError
from seventy.plan.memory import LARGEST_GB, MOST_GB, Dimms
from seventy.plan.plain_text import SIZES, STICKS, plain

# Sums that people say without taking them apart, GB.
_TOTALS = {4, 8, 12, 16, 18, 20, 24, 32, 36, 40, 48, 64, 80, 96, 112, 128, 144, 160, 192, 224, 256, 288, 320, 384, 448,
           512, 576, 640, 768, 896, 1024, 1152, 1280, 1536, 2048, 3072, 4096}  # fmt: skip
_MTS = {800, 1066, 1333, 1600, 1866, 2133, 2400, 2666, 2667, 2933, 3000, 3200, 3466, 3600, 3733, 3800, 4000, 4266,
        4400, 4800, 5200, 5600, 6000, 6200, 6400, 6600, 6800, 7200, 7500, 7600, 8000, 8400, 8533}  # fmt: skip
_GB = r"(?P<gb>\d{1,6}(?:\.\d)?)\s*(?:个\s*)?g(?:i?b|igs?|igabytes?)?(?:(?![a-z0-9])|(?=x\d|\d{4}(?!\d)))"
_KIND = (r"(?:[\s-]*(?:(?:lp)?ddr[345]x?|pc[345]|ecc|reg(?:istered)?|rdimm|lrdimm|udimm|so-?dimm|ram|memory|"
         r"内存条?|服务器|的|of))*")  # fmt: skip
# Of these only what is called memory, or what may be it (`bare`): a drive is written the same way.
_TB = r"(?<![\w.])(?P<tb>\d{1,4}(?:\.\d{1,2})?)\s*t"
# How modules are written, the clearest first; a pattern without a count means one, `total` a sum nobody took apart.
_MEMORY = (
    rf"(?<![\w.])(?P<n>\d{{1,2}})\s*[x×*]\s*{_GB}",
    rf"{_GB}{_KIND}\s*[x×*]\s*(?P<n>\d{{1,2}})(?![\w])",
    rf"(?<![\w.])(?P<n>\d{{1,2}})\s*(?:x|{STICKS}){_KIND}\s*{_GB}",
    rf"{_GB}{_KIND}(?:[\s,-]*(?P<mts>\d{{4}})(?:mhz|mt/s|t)?)?\s*(?P<n>\d{{1,2}})\s*{STICKS}",
    rf"(?<![\w.-])(?P<n>\d{{1,2}})\s+{_GB}{_KIND}\s*{STICKS}",
    rf"{_GB}{_KIND}\s*{STICKS}",
    r"(?<![\w.])(?P<n>\d{1,3})\s*[x×*]\s*(?P<gb>\d{1,3}(?:\.\d)?)(?![\w.-])(?!\s*(?:core|核|c\b))",
    rf"{_TB}(?:i?b)?{_KIND}\s*(?:ram|memory|内存|(?:lp)?ddr[345]|l?rdimm)",
    r"(?:ram|memory|内存)\s*:?\s*(?P<tb>\d{1,4}(?:\.\d{1,2})?)\s*t(?:i?b)?(?![a-z0-9/])",
    rf"(?P<bare>){_TB}i?b(?![a-z0-9/])",
    rf"(?P<total>){_GB}",
    r"(?P<total>)(?:ram|memory|内存)\s*:?\s*(?P<gb>\d{1,6})(?![\w.*])",
    # A number at the end of a part: "Z440 + E5-2680 v4 + 64".
    r"(?P<total>)(?P<bare>)(?<![^\s+,;、(])(?P<gb>\d{2,4})(?=\s*(?:$|[+,;、)/]))",
)
_STORAGE = r"ssd|nvme|disk|hdd|drive|storage|sata|m\.2|硬盘|固态|机械|存储"
_GRAPHICS = r"vram|显存|gpu|显卡"
_CARD = r"p106|(?:rtx|gtx|rx|arc|tesla|radeon|\d0[679]0)\s*\w*(?:\s+(?:ti|super|xt))?"
_SIZE = r"(?P<size>\d{1,4}(?:\.\d+)?)\s*(?P<unit>[gt])(?:i?b)?"
_ANY_SIZE = re.compile(r"(?<![\w.])(?P<size>\d{1,6}(?:\.\d+)?)\s*(?P<unit>[gt])(?:i?b)?(?![a-z0-9/])")
_BEFORE = re.compile(rf"(?:(?P<storage>{_STORAGE})|{_GRAPHICS}|{_CARD})[\s:=(-]*$")
_CARD_BEFORE = re.compile(rf"(?:{_CARD})\W*$")
_AFTER = re.compile(rf"[\s(-]*的?(?:(?P<storage>{_STORAGE})|{_GRAPHICS})[\s:=-]*")
_CALLED_MEMORY = re.compile(r"\s*(?:of\s|的)?\s*(?:ram|memory|内存)")
_CALLED_MEMORY_BEFORE = re.compile(r"(?:ram|memory|内存)\s*:?\s*$")
_SPEED = re.compile(r"(?:@\s*|ddr[345]x?[\s-]*|pc[345][\s-]*)?(?<![\d.a-fh-z])(\d{3,5})\s*(?:mhz|mt/?s|t(?![a-z]))?")
_BREAK = re.compile(r"\n|\bvs\.?(?![a-z])|\bversus\b|还是|对比|或者")
# A name that is a CPU's though the catalogue lacks it.
_CPU_LIKE = re.compile(r"(?:xeon|epyc|ryzen|core|threadripper|pentium|celeron|athlon|i[3579]|e[357]|gold|silver"
                       r"|platinum|ultra)(?:[\s-]*(?!\d+\s*[x×*]|\d+g)[a-z0-9+]+){0,4}")  # fmt: skip
# A name that is a server's or a workstation's though the catalogue lacks it.
_PLATFORM_LIKE = re.compile(r"(?<![\w-])(?:[dm]l\d{2,3}(?: gen\d{1,2})?|(?:poweredge |dell )?[rt][2-9]\d0(?:xd|xs)?"
                            r"|z[2468] ?g\d|z[2468][24]0|sr\d{3}|rd\d{3})(?![\w-])")  # fmt: skip
# What people call platforms beside what is in their names.
_OTHER_NAMES = {
    "x99": "Huananzhi X99-F8 / X99-TF", "strixhalo": "Strix Halo mini PC 128GB (GMKtec EVO-X2 class)",
    "framework desktop": "Strix Halo mini PC 128GB (GMKtec EVO-X2 class)", "b550": "Generic AM4 ATX/mATX (B450/B550)",
    "b450": "Generic AM4 ATX/mATX (B450/B550)", "b650": "Generic AM5 ATX/mATX (B650/B850)",
    "b850": "Generic AM5 ATX/mATX (B650/B850)", "h12ssl": "Supermicro H12SSL-i / -CT", "h11ssl": "Supermicro H11SSL-i",
}  # fmt: skip
_DUAL_X99 = "Huananzhi X99-F8D (dual)"
_OTHER_CPUS = {"orangepi5": "Rockchip RK3588", "rock5b": "Rockchip RK3588"}


@dataclass(frozen=True, slots=True)
class Description:
    """A machine as described. `cpu_name` is what was written, `sockets` is None if not given.

    `close` are names like a CPU's that the catalogue lacks; `platform_name` is that of a platform it lacks, with names
    close to it. `unread` is a size that was not taken for memory, where there is none.
    """

    platform: Platform | None = None
    cpu: Cpu | None = None
    cpu_name: str = ""
    sockets: int | None = None
    dimms: Dimms | None = None
    close: tuple[str, ...] = ()
    platform_name: str = ""
    close_platforms: tuple[str, ...] = ()
    unread: str = ""

    @property
    def empty(self) -> bool:
        return self.platform is None and not self.cpu_name and self.dimms is None and not self.platform_name


@dataclass(frozen=True, slots=True)
class _Item:
    """Something named in the text, and where; exactly one of platform, CPU and dimms is set.

    `bare` marks a size that may be a drive's.
    """

    start: int
    end: int
    platform: Platform | None = None
    cpu: Cpu | None = None
    dimms: Dimms | None = None
    sockets: int | None = None
    bare: bool = False


def read(text: str) -> list[Description]:
    """Every machine a text describes; none where it names neither platform nor CPU nor memory.

    Raises SeventyError where it names memory that no machine has: none, or more than there is.
    """
    found: list[Description] = []
    for part in _BREAK.split(plain(text)):
        try:
            found += _machines(part)
        except ValueError as error:
            raise SeventyError(
                '{text!r}: {error}; write memory as in 4x16@2400 or "64GB RAM", a drive as in "2TB SSD"',
                text=part.strip(), error=error,
            ) from None
    return found


def _machines(text: str) -> list[Description]:
    items = _items(text)
    like = _PLATFORM_LIKE.search(_blank(text, items))
    rest = text if like is None else _blank(text, [_Item(*like.span())])
    unknown = None if any(item.cpu for item in items) else _unknown_cpu(rest, items, like is not None)
    found = _with_unknown_cpu(rest, items, *unknown) if unknown else [_describe(each, text) for each in _groups(items)]
    if like is not None:
        found = _with_platform_name(found, like[0])
    return _with_unread(found, text, items)


def _with_platform_name(found: Sequence[Description], name: str) -> list[Description]:
    """The machines, the first one without a platform as one of this name, which the catalogue lacks.

    A name that several platforms begin with is the one that takes the CPU.
    """
    at = next((index for index, each in enumerate(found) if each.platform is None), len(found))
    one = found[at] if at < len(found) else Description()
    names = {re.sub(r".*?(?=\b\w*\d)", "", each.name.lower(), count=1): each for each in all_platforms()}
    begin = {key: each for key, each in names.items() if key.startswith(name + " ")}
    able = [each for each in begin.values() if one.cpu is not None and each.takes(one.cpu)]
    close = tuple(names[key].name for key in begin or get_close_matches(name, names, 2, 0.75))
    said = name.upper().replace("GEN", "Gen")
    one = replace(one, platform=able[0]) if len(able) == 1 else (
        replace(one, platform_name=said, close_platforms=close))  # fmt: skip
    return [*found[:at], one, *found[at + 1 :]]


def _with_unread(found: Sequence[Description], text: str, items: Sequence[_Item]) -> list[Description]:
    """The machines, the first one without memory with a size that was not taken for memory.

    Raises ValueError where no machine has so much.
    """
    lacking = next((each for each in found if each.dimms is None), None)
    free = _blank(text, [item for item in items if not item.bare])
    sizes = [(match[0], float(match["size"]) * (1024 if match["unit"] == "t" else 1), match.span())
             for match in _ANY_SIZE.finditer(free)]  # fmt: skip
    said = next(((words, gb) for words, gb, span in sizes if not _of_a_drive(free, *span, gb)), None)
    if lacking is None or said is None:
        return list(found)
    Dimms(1, said[1], None, whole=True)
    return [replace(each, unread=said[0].upper()) if each is lacking else each for each in found]


def _items(text: str) -> list[_Item]:
    """What the text names, in the order of the text."""
    whole = list(_named(text, _cpu_names(whole=True)))
    memory = list(_memory_items(_blank(text, whole), {item.cpu.max_mem_gb for item in whole if item.cpu}))
    free = _blank(text, memory)
    platforms = list(_named(free, _platform_names()))
    free = _blank(free, platforms)
    cpus = [_with_sockets(item, free) for item in _named(free, _cpu_names())]
    items = _without_drives(sorted([*memory, *platforms, *cpus], key=lambda item: item.start), text)
    return [item if item.dimms is None else _with_speed(item, text, items) for item in items]


def _blank(text: str, items: Sequence[_Item]) -> str:
    for item in items:
        text = text[: item.start] + "\0" * (item.end - item.start) + text[item.end :]
    return text


def _without_drives(items: Sequence[_Item], text: str) -> list[_Item]:
    """The items but for what stands beside memory as "1TB" does in "64GB 1TB", and for a total said twice."""

    def beside(a: _Item, b: _Item) -> bool:
        return a.dimms is not None and b.dimms is not None and not re.search("[;\n]", text[a.end : b.start])

    pairs = [pair for pair in pairwise(items) if beside(*pair)]
    again = [item for pair in pairs for item in pair if _said_twice(item, pair)]
    return [item for item in items if item not in again and not (item.bare and any(item in pair for pair in pairs))]


def _said_twice(item: _Item, items: Sequence[_Item]) -> bool:
    """Whether modules beside a total make that total: "64 GB (2x32)"."""
    total = item.dimms.gb if item.dimms is not None and item.dimms.whole else None
    return any(other.dimms is not None and not other.dimms.whole and other.dimms.total_gb == total for other in items)


def _memory_items(text: str, most_of_cpus: Container[float | None]) -> Iterator[_Item]:
    """Yield the memory that the text names."""
    found: list[_Item] = []
    for pattern in _MEMORY:
        for match in re.finditer(pattern, text):
            start, end = match.span()
            taken = any(start < item.end and end > item.start for item in found)
            if not taken and (item := _memory_item(match, most_of_cpus)):
                found.append(item)
    yield from found


def _memory_item(match: re.Match[str], most_of_cpus: Container[float | None]) -> _Item | None:
    """The memory that a match of one of the patterns names; None if it is a drive, or no usual size.

    Raises ValueError where no machine has as many modules, or as much.
    """
    values, text = match.groupdict(), match.string
    count = int(values.get("n") or 1)
    mts = int(values["mts"]) if values.get("mts") else None
    is_whole = "total" in values or "tb" in values
    if "tb" in values:
        gb, is_known = 1024 * float(values["tb"]), True
    else:
        gb = float(values["gb"])
        if gb <= 4 and count in (16, 32, 64, 128):
            count, gb = int(gb), float(count)  # "16*4" are four of 16
        called = _CALLED_MEMORY.match(text, match.end()) or _CALLED_MEMORY_BEFORE.search(text[: match.start()])
        is_known = gb in _TOTALS or gb in most_of_cpus or bool(called) if is_whole else gb in SIZES or gb == 0
    # What may be a drive is one if it is too large for memory.
    if not is_known or ("bare" in values and gb > MOST_GB) or _of_a_drive(text, *match.span(), gb):
        return None
    return _Item(*match.span(), dimms=Dimms(count, gb, mts, whole=is_whole), bare="bare" in values)


def _of_a_drive(text: str, start: int, end: int, gb: float) -> bool:
    """Whether the size that stands there is one of a drive or a graphics card, not of memory."""

    def larger(other: re.Match[str] | None) -> bool:
        # Of two sizes around "SSD" the larger is the drive's.
        return other is not None and float(other["size"]) * (1024 if other["unit"] == "t" else 1) > gb

    if after := _AFTER.match(text, end):
        return not (after["storage"] and larger(re.compile(_SIZE).match(text, after.end())))
    before = _BEFORE.search(text[:start])
    card = _CARD_BEFORE.search(text[:start])
    # "64GB, RTX 3090, 24GB": memory was said already.
    if before is None and card is not None and re.search(_SIZE, text[: card.start()]):
        return True
    if before is None or _CALLED_MEMORY.match(text, end):
        return False
    return not (before["storage"] and larger(re.search(rf"{_SIZE}[\s(-]*的?$", text[: before.start()])))


def _with_speed(item: _Item, text: str, items: Sequence[_Item]) -> _Item:
    """The modules with the speed and the kind that stand beside them."""
    before = max((other.end for other in items if other.end <= item.start), default=0)
    after = min((other.start for other in items if other.start >= item.end), default=len(text))
    assert item.dimms is not None
    mts = item.dimms.mts
    for around in (text[item.end : after], text[item.start : item.end], text[before : item.start]):
        for match in _SPEED.finditer(around):
            clear = re.match(r"@|ddr|pc", match[0]) or re.search(r"[a-z]$", match[0])
            if mts is None and (int(match[1]) in _MTS or (clear and 400 <= int(match[1]) <= 80000)):
                mts = _transfers(int(match[1]))
    near = text[before:after]
    kind = re.search(r"(?<!lp)ddr([345])", near)
    form = re.search(r"lrdimm|rdimm|udimm|so-?dimm", near)
    dimms = replace(
        item.dimms, mts=mts, kind=f"DDR{kind[1]}" if kind else "",
        form=form[0].replace("-", "").upper() if form else "",
    )  # fmt: skip
    return replace(item, dimms=dimms)


def _transfers(speed: int) -> int:
    """MT/s of a number that may be MB/s, as in PC4-19200."""
    return min(_MTS, key=lambda mts: abs(mts - speed / 8)) if speed >= 10000 else speed


def _with_sockets(item: _Item, text: str) -> _Item:
    leading = r"(?<![a-z0-9])(\d)\s*(?:[x×*]|颗|路|个|块|sockets?|cpus?)?\s*(?:intel|amd)?\s*$"
    before = re.search(leading, text[: item.start])
    after = re.match(r"\s*(?:[x×*]\s*(\d)(?!\d|\s*[x×*g])|(\d)\s*(?:颗|路|个|块|sockets?|cpus?))", text[item.end :])
    said = next((number for number in ((after and (after[1] or after[2])), before and before[1]) if number), None)
    return replace(item, sockets=int(said)) if said and 1 <= int(said) <= 8 else item


def _groups(items: Sequence[_Item]) -> list[list[_Item]]:
    """Items that belong to one machine: it has one platform, one CPU; a second one begins another machine."""
    groups: list[list[_Item]] = []
    for index, item in enumerate(items):
        current = groups[-1] if groups else []
        following = items[index + 1] if index + 1 < len(items) else None
        if not current or _conflicts(current, item, following):
            groups.append([item])
        else:
            current.append(item)
    return groups


def _has(group: Sequence[_Item], item: _Item) -> bool:
    return any((other.platform and item.platform) or (other.cpu and item.cpu) or (other.dimms and item.dimms)
               for other in group)  # fmt: skip


def _conflicts(group: Sequence[_Item], item: _Item, following: _Item | None) -> bool:
    if not _has(group, item):
        return _of_another(group, item)
    if item.dimms is None:
        return not any(other.cpu == item.cpu and other.platform == item.platform for other in group)
    # A second set of modules is more of the same machine unless a CPU or platform of another one follows.
    return following is not None and following.dimms is None and _has(group, following)


def _of_another(group: Sequence[_Item], item: _Item) -> bool:
    """Whether a CPU or a platform begins another machine: it does not go with what the group has, memory included."""
    if not any(other.dimms for other in group):
        return False
    pairs = [(other.platform or item.platform, other.cpu or item.cpu) for other in group if not other.dimms]
    return any(platform is not None and cpu is not None and not platform.takes(cpu) for platform, cpu in pairs)


def _describe(group: Sequence[_Item], text: str) -> Description:
    """Make one machine of what a group of items names."""
    platform = next((item.platform for item in group if item.platform), None)
    cpus = [item for item in group if item.cpu]
    cpu = cpus[0].cpu if cpus else _soldered_cpu(platform)
    sockets = _sockets(cpus, platform, text)
    if sockets == 2 and platform is not None and platform.name == _OTHER_NAMES["x99"]:
        platform = next(each for each in all_platforms() if each.name == _DUAL_X99)
    dimms = _memory_of(group, _most_memory_gb(platform, cpu, sockets))
    return Description(platform, cpu, cpu.name if cpu else "", sockets, dimms)


def _memory_of(group: Sequence[_Item], most_gb: float) -> Dimms | None:
    """The memory that the group names. A bare size counts only if nothing else is named and a machine can have it."""
    sure = [item.dimms for item in group if item.dimms and not item.bare and not _said_twice(item, group)]
    # More than a machine can have is a drive.
    maybe = [item.dimms for item in group if item.dimms and item.bare and item.dimms.gb <= most_gb]
    return _together(sure or maybe[:1])


def _soldered_cpu(platform: Platform | None) -> Cpu | None:
    """The CPU that a platform is sold with; None if it takes several."""
    if platform is None or not platform.cpu:
        return None
    return next(each for each in all_cpus() if each.name == platform.cpu)


def _sockets(cpus: Sequence[_Item], platform: Platform | None, text: str) -> int | None:
    """How many CPUs the text says there are: a number beside one, or several names; None where it says nothing."""
    said = [item.sockets for item in cpus if item.sockets]
    if said:
        return max(said)
    if len(cpus) > 1:
        return len(cpus)
    return 2 if platform is not None and re.search(r"2\s*(?:路|sockets?|cpus?)", text) else None


def _most_memory_gb(platform: Platform | None, cpu: Cpu | None, sockets: int | None) -> float:
    """The most memory in GB that the platform takes, or the CPUs where no platform is named."""
    if platform is not None:
        return platform.max_mem_gb
    return cpu.max_mem_gb * (sockets or 1) if cpu is not None and cpu.max_mem_gb else math.inf


def _together(sets: Sequence[Dimms]) -> Dimms | None:
    """One set of equal modules for all: as many, their mean size, the slowest speed."""
    if len(sets) <= 1:
        return sets[0] if sets else None
    count, total = sum(each.count for each in sets), sum(each.total_gb for each in sets)
    speeds = [each.mts for each in sets if each.mts]
    # What is more than modules can hold are totals.
    whole = total / count > LARGEST_GB
    count, gb = (1, min(total, float(MOST_GB))) if whole else (count, total / count)
    form = "mixed" if len({each.gb for each in sets}) > 1 else sets[0].form
    return replace(sets[0], count=count, gb=gb, mts=min(speeds, default=None), form=form, whole=whole)


def _unknown_cpu(text: str, items: Sequence[_Item], has_platform: bool) -> tuple[str, int, int] | None:
    """The name of a CPU that the catalogue lacks, and where it stands."""
    free = _blank(text, items)
    match = next((match for match in _CPU_LIKE.finditer(free) if re.search(r"\d{3}", match[0])), None)
    if match is not None:
        return match[0].strip(" -+"), match.start(), match.end()
    if has_platform or any(item.platform for item in items):
        return None
    # The first words that hold a letter and a long number.
    for piece in re.finditer(r"[^\0;,+、，；\n]+", free):
        name = piece[0].strip()
        if re.search(r"[a-z]", name) and re.search(r"\d{3}|[a-z]+\d", name):
            return name, piece.start(), piece.end()
    return None


def _with_unknown_cpu(text: str, items: Sequence[_Item], name: str, start: int, end: int) -> list[Description]:
    count = re.match(r"(\d)\s*[x×*]?\s+(?=\D)", name)
    said = _with_sockets(_Item(start, end), text).sockets
    sockets, name = (int(count[1]), name[count.end() :]) if count else (said, name)
    cpu, close = find_cpu(name, all_cpus())
    first = _describe([item for item in items if not item.cpu], text)
    return [replace(first, cpu=cpu, cpu_name=cpu.name if cpu else name, sockets=sockets, close=tuple(close))]


def _named(text: str, names: dict[str, _Item]) -> Iterator[_Item]:
    """Every name in the text, the longest first where they overlap."""
    words = list(re.finditer(r"[a-z0-9]+\+?(?![a-z0-9])|[a-z0-9]+", text))
    index = 0
    while index < len(words):
        for length in range(min(7, len(words) - index), 0, -1):
            window = words[index : index + length]
            key = "".join(word[0] for word in window)
            key = key if key in names else key.removesuffix("s")
            whole = "\0" not in text[window[0].start() : window[-1].end()]
            following = words[index + length][0] if index + length < len(words) else ""
            if key in names and (length == 1 or len(key) > 3) and whole and not _of_another_generation(key, following):
                yield replace(names[key], start=window[0].start(), end=window[-1].end())
                index += length
                break
        else:
            index += 1


def _of_another_generation(key: str, following: str) -> bool:
    """Whether a name goes on: "E5-2680 v9" is no E5-2680, "DL380 Gen10" no DL380 of another generation."""
    return bool(re.fullmatch(r"gen\d+", following) or (re.search(r"\d{4}l?$", key) and re.fullmatch(r"v\d", following)))


def _endings(words: Sequence[str]) -> Iterator[str]:
    for index in range(len(words)):
        yield "".join(words[index:])


def _name_words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9+]+", name.lower())


def _pieces(cpu: Cpu, name: str) -> set[str]:
    """The ends of a CPU's name that can only mean a CPU."""
    words = _name_words(name)
    shorter = [word for word in words if word != "pro"]
    ends = {*_endings(words), *(_endings(shorter) if cpu.vendor == "AMD" else ())}
    return {key for key in ends if _tells(key, cpu)}


@cache
def _cpu_names(whole: bool = False) -> dict[str, _Item]:
    """CPUs by all that people call them: "intelxeone52680v4", "e52680v4", "2680v4", "8175m".

    With `whole` by their names alone, with and without the maker.
    """
    found: dict[str, set[str]] = {}
    short: dict[str, set[str]] = {}
    full = {"".join(_name_words(cpu.name)): cpu for cpu in all_cpus()}
    # A name without a number is told by all of it: "Grace".
    full |= {key.removeprefix(cpu.vendor.lower()): cpu for key, cpu in full.items() if key.isalpha()}
    full |= {"".join(_name_words(cpu.name.partition("(")[0])): cpu for cpu in all_cpus() if cpu.vendor == "Qualcomm"}
    for cpu in all_cpus():
        for key in _pieces(cpu, cpu.name):
            found.setdefault(key, set()).add(cpu.name)
        for key in _pieces(cpu, re.sub(r"\(.*?\)", "", cpu.name)):
            short.setdefault(key, set()).add(cpu.name)
    # "M4 Pro" is the CPU of that name, not one of "M4 Pro (12-core)".
    found = short | found
    cpus = {cpu.name: cpu for cpu in all_cpus()}
    known = {key: cpus[next(iter(names))] for key, names in found.items() if len(names) == 1} | full
    known |= {key: cpus[name] for key, name in _OTHER_CPUS.items()}
    if whole:
        known = {key: cpu for key, cpu in known.items()
                 if key in ("".join(_name_words(cpu.name)), "".join(_name_words(cpu.name)[1:]))}  # fmt: skip
    return {key: _Item(0, 0, cpu=cpu) for key, cpu in known.items()}


def _tells(key: str, cpu: Cpu) -> bool:
    """Whether a piece of a name can only mean a CPU."""
    # Nor are "32x" and "12core" of a longer name.
    if not any(char.isdigit() for char in key) or re.fullmatch(r"\d{1,2}x|\D*\d+core", key):
        return False
    if key.isdigit():
        return len(key) == 4 and int(key) not in _MTS and cpu.vendor in ("Intel", "AMD")
    return len(key) >= 3 or cpu.vendor == "Apple"


def _platform_keys(name: str) -> set[str]:
    """What people may call a platform of this name: its first words, each word, two words together."""
    words = re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.sub(r"\bgen ?(\d+)", r"gen\1", name.lower()))
    pieces = [word.replace("-", "") for word in words]
    keys = {"".join(pieces[:end]) for end in range(2, len(pieces) + 1)} | {*pieces}
    keys |= {f"{a}{b}" for a, b in pairwise(pieces)} | {"".join(pieces[1:end]) for end in range(3, len(pieces) + 1)}
    # "Precision T5810" is a Precision 5810, too.
    models = [piece[1:] for piece in pieces if re.fullmatch(r"t\d{4}", piece)]
    keys |= {f"{maker}{model}" for model in models for maker in ("precision", "dell")}
    # "5212M5" is Inspur's SA5212M5, and no generation alone names a server.
    keys |= {piece[2:] for piece in pieces if re.fullmatch(r"(?:sa|nf)\d{4}m\d", piece)}
    keys -= {key for key in keys if re.fullmatch(r"gen\d+", key)}
    return {key for key in keys if len(key) >= 3 and re.search(r"[a-z]\D*\d", key) and "ddr" not in key}


@cache
def _platform_names() -> dict[str, _Item]:
    """Platforms by their names, the pieces of them that hold a number, and what else people call them."""
    found: dict[str, set[str]] = {}
    platforms = {platform.name: platform for platform in all_platforms()}
    for name in platforms:
        for key in _platform_keys(name) - _cpu_names().keys():
            found.setdefault(key, set()).add(name)
    named = {key: next(iter(names)) for key, names in found.items() if len(names) == 1}
    named |= {re.sub(r"\W", "", key): name for key, name in _OTHER_NAMES.items() if name in platforms}
    return {key: _Item(0, 0, platform=platforms[name]) for key, name in named.items()}
