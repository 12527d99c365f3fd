"""Machines as people describe them, and what can really be of what they say."""

import pytest

from seventy.errors import SeventyError
from seventy.plan.described import read
from seventy.plan.memory import parse_dimms
from seventy.plan.owned import machine_from_words, owned

Z440 = ("HP Z440", "Intel Xeon E5-2680 v4", 1, "1x64")


@pytest.mark.parametrize(
    "text, platform, cpu, sockets, memory",
    [
        ("HP Z440; E5-2680 v4; 1x64@2400", "HP Z440", "Intel Xeon E5-2680 v4", 1, "1x64@2400"),
        ("Z440 with E5-2680 v4 and one 64GB stick", *Z440),
        ("Z440 + E5-2680 v4 一条64G", *Z440),
        ("64G内存条，2680v4，惠普Z440", *Z440),
        ("Z440", "HP Z440", "Intel Xeon E5-2680 v4", 1, "4x16"),
        ("双路E5 2680v4 256G内存 R730", "Dell PowerEdge R730", "Intel Xeon E5-2680 v4", 2, "8x32"),
        ("三条32G DDR4 2400 插在 Z640，两颗 E5-2690 v4", "HP Z640", "Intel Xeon E5-2690 v4", 2, "3x32@2400"),
        ("Precision 5810, E5-1650 v3, 4 sticks of 16 GB", "Dell Precision T5810", "Intel Xeon E5-1650 v3", 1, "4x16"),
        ("X99 双路 2696v3 两颗 8条32G 2133", "Huananzhi X99-F8D (dual)", "Intel Xeon E5-2696 v3", 2, "8x32@2133"),
        ("9950X 128G RTX 3090 24GB", None, "AMD Ryzen 9 9950X", 1, "2x64"),
        ("5950X 4*32G 3200", None, "AMD Ryzen 9 5950X", 1, "4x32@3200"),
        ("SER8 64GB", "Beelink SER8 (8845HS/8745HS)", "AMD Ryzen 7 8845HS", 1, "2x32"),
        ("64GB (2x32) 5600 Ryzen 7 8845HS", None, "AMD Ryzen 7 8845HS", 1, "2x32@5600"),
        ("E5-2680 v4 2x32@2400 + 2x16@2400", None, "Intel Xeon E5-2680 v4", 1, "4x24@2400"),
        ("2 x Xeon Gold 6138, 12x16GB PC4-21300", None, "Intel Xeon Gold 6138", 2, "12x16@2666"),
        ("Z440+E5-2680v4+64Gx1", *Z440),
        ("Ryzen 5 5600, 32GB RAM (2x16), RTX 3060 12GB", None, "AMD Ryzen 5 5600", 1, "2x16"),
        ("z440s with a xeon 2680v4, ram 64", "HP Z440", "Intel Xeon E5-2680 v4", 1, "4x16"),
        ("32GB DDR3 E5-2650 v2", None, "Intel Xeon E5-2650 v2", 1, "4x8"),
        ("12900K 4x16@3600", None, "Intel Core i9-12900K", 1, "4x16@3600"),
        ("HP Z440 E5-2680v4 一條64G", *Z440),
        ("I have a Z440 with a 2680v4 and a single stick of 64", *Z440),
        ("i've got an hp z440, xeon e5-2680v4, 64 gigs", "HP Z440", "Intel Xeon E5-2680 v4", 1, "4x16"),
        ("E5-2680 V4 + HP Z440 + 64", "HP Z440", "Intel Xeon E5-2680 v4", 1, "4x16"),
        ("R730xd 2x2680v4 384GB", "Dell PowerEdge R730xd", "Intel Xeon E5-2680 v4", 2, "24x16"),
        ("双2680v4 Z640 256g", "HP Z640", "Intel Xeon E5-2680 v4", 2, "8x32"),
        ("浪潮 5212m5 2*8259CL 8x32g", "Inspur SA5212M5 (NF5212M5)", "Intel Xeon Platinum 8259CL", 2, "8x32"),
        ("DL380 G9 2x 2690 v4 256", "HPE ProLiant DL380 Gen9", "Intel Xeon E5-2690 v4", 2, "8x32"),
        ("DL380 Gen10 2x 6248 12x32", "HPE ProLiant DL380 Gen10", "Intel Xeon Gold 6248", 2, "12x32"),
        ("Z440 2680v4 内存：4*16G；硬盘：512G", "HP Z440", "Intel Xeon E5-2680 v4", 1, "4x16"),
        ("Z440 2680v4 2条32G2400", "HP Z440", "Intel Xeon E5-2680 v4", 1, "2x32@2400"),
        ("Z440 2680v4 16*4 2133", "HP Z440", "Intel Xeon E5-2680 v4", 1, "4x16@2133"),
        ("Z440 2680v4 512G SSD 64G内存", "HP Z440", "Intel Xeon E5-2680 v4", 1, "4x16"),
        ("Z440 2680v4 64GB SSD 1TB", "HP Z440", "Intel Xeon E5-2680 v4", 1, "4x16"),
        ("Z440 2680v4 64GB, SSD 1TB", "HP Z440", "Intel Xeon E5-2680 v4", 1, "4x16"),
        ("Z440, 2680v4, 32+32", "HP Z440", "Intel Xeon E5-2680 v4", 1, "2x32"),
        ("i5-13600K, RTX 4060, 32GB", None, "Intel Core i5-13600K", 1, "2x16"),
        ("Ryzen7950x 64GB", None, "AMD Ryzen 9 7950X", 1, "2x32"),
        ("macbook pro 14 m3 max 36gb", None, "Apple M3 Max", 1, "1x36"),
        ("M2 Ultra 192", None, "Apple M2 Ultra", 1, "1x192"),
        ("树莓派5 8G", None, "Raspberry Pi 5 (BCM2712)", 1, "1x8"),
        ("Snapdragon X Elite 32GB", None, "Snapdragon X Elite (X1E-80)", 1, "1x32"),
    ],
)  # fmt: skip
def test_platform_cpu_and_memory_in_any_order(
    text: str, platform: str | None, cpu: str, sockets: int, memory: str
) -> None:
    found = owned(text)
    assert len(found) == 1
    one = found[0]
    assert one.platform is None if platform is None else one.platform and one.platform.name == platform
    assert one.machine.cpu is not None and one.machine.cpu.name == cpu
    assert (one.machine.sockets, str(one.dimms)) == (sockets, memory)


@pytest.mark.parametrize(
    "text, count",
    [
        ("R730 2x E5-2697 v4 8x32 2400; Z440 2680v4 4x64; 7950X 2x32", 3),
        ("Z440 + E5-2680 v4 + 64G vs 7950X + 64GB", 2),
        ("7950x 64gb and 5600g 32gb", 2),
        ("Z440 2680v4 四条16G 还是 SER8 64G", 2),
        ("HP Z440; E5-2680 v4; 1x64@2400", 1),
    ],
)
def test_several_machines_follow_each_other(text: str, count: int) -> None:
    assert len(owned(text)) == count


@pytest.mark.parametrize("text", ["", "a nice computer", "64GB", "pc with 16 cores and 64gb"])
def test_a_text_without_a_machine_is_asked_for_one(text: str) -> None:
    with pytest.raises(SeventyError, match="as in"):
        owned(text)


@pytest.mark.parametrize(
    "cpu, memory, dimms, mts, note",
    [
        ("Ryzen 9 7950X", "4x48@6000", "4x48@6000", 3600, "two_per_channel"),
        ("Ryzen 9 5950X", "2x32@6000", "2x32@3200", 3200, "memory_speed"),
        ("Ryzen 9 5950X", "128GB", "4x32", 3200, "memory_spread"),
        ("Ryzen 9 5950X", "1x128@3200", "4x32@3200", 3200, "memory_size"),
        ("Ryzen 9 5950X", "8x16@3200", "4x16@3200", 3200, "memory_slots"),
        ("E5-2680 v4", "4x24@2400", "4x24@2400", 2400, "memory_pairs"),
        ("E5-2680 v4", "4x16@3200", "4x16@3200", 2400, "memory_slowed"),
        ("Core i9-12900K", "2x32@6000", "2x32@6000", 6000, ""),
        ("Core i9-12900K", "2x32@3200", "2x32@3200", 3200, ""),
    ],
)
def test_impossible_memory_is_corrected_and_said(cpu: str, memory: str, dimms: str, mts: int, note: str) -> None:
    machine = machine_from_words(cpu, 1, memory, 3.0)
    assert (str(machine.dimms), machine.mts) == (dimms, mts)
    assert {key for key, _ in machine.notes} - {"channels_empty", "links_limit"} == ({note} if note else set())


def test_two_of_a_cpu_in_its_name_are_two_sockets() -> None:
    assert machine_from_words("2x E5-2680 v4", 1, "8x16@2400", 3.0).sockets == 2
    one = machine_from_words("Z440 + 2x E5-2680 v4", 1, "8x16@2400", 3.0)
    assert one.sockets == 1 and "platform_sockets" in {key for key, _ in one.notes}
    assert parse_dimms("64").whole and not parse_dimms("1x64").whole


def test_soldered_memory_is_what_the_machine_has() -> None:
    found = read("MacBook M2 Max 96GB")[0]
    assert found.cpu is not None and found.cpu.soldered and found.dimms is not None and found.dimms.total_gb == 96


@pytest.mark.parametrize(
    "text, cpu, memory",
    [
        ("dual EPYC 7742 1TB内存", "AMD EPYC 7742", "16x64"),
        ("EPYC 9654 2TB DDR5", "AMD EPYC 9654", "8x256"),
        ("EPYC 7742 1.5TB RAM", "AMD EPYC 7742", "24x64"),
        ("NVIDIA Grace 480GB", "NVIDIA Grace", "1x480"),
        ("Grace 480GB", "NVIDIA Grace", "1x480"),
        ("AmpereOne A192-32X 64GB", "AmpereOne A192-32X", "4x16"),
        ("M4 Pro (12-core) 48GB", "Apple M4 Pro (12-core)", "1x48"),
        ("M4 Pro 48GB", "Apple M4 Pro", "1x48"),
        ("Ryzen 9 7950X 64GB 1TB", "AMD Ryzen 9 7950X", "2x32"),
        ("Ryzen 9 7950X 64GB, 2TB NVMe", "AMD Ryzen 9 7950X", "2x32"),
    ],
)
def test_terabytes_and_names_with_numbers(text: str, cpu: str, memory: str) -> None:
    (one,) = owned(text)
    assert one.machine.cpu is not None and (one.machine.cpu.name, str(one.dimms)) == (cpu, memory)


@pytest.mark.parametrize(
    "text, said", [("Ryzen 9 7950X 1TB", "1TB"), ("Z440 2680v4 2T", "2T"), ("2680v4 100G", "100G")]
)
def test_a_size_that_is_not_taken_for_memory_is_said(text: str, said: str) -> None:
    assert read(text)[0].dimms is None
    notes = dict(owned(text)[0].machine.notes)
    assert notes["memory_unread"]["said"] == said and "memory_unsaid" not in notes


@pytest.mark.parametrize("memory", ["64TB", "64TB RAM", "16384GB", "9999G内存", "0x64", "8x0GB", "99x64", "0GB"])
def test_memory_that_no_machine_has_is_one_sentence(memory: str) -> None:
    with pytest.raises(SeventyError, match="cannot be right"):
        read(f"E5-2680 v4 {memory}")
    # Beside memory, so much is a drive's.
    if memory == "64TB":
        assert str(owned(f"E5-2680 v4 4x16 {memory}")[0].dimms) == "4x16"


def test_a_platform_that_the_catalogue_lacks_is_said() -> None:
    (one,) = owned("DL380 G11 + 2x 8480+ 16x32")
    notes = dict(one.machine.notes)
    assert notes["platform_unknown"]["platform"] == "DL380 Gen11" and "DL380 Gen10" in str(notes["cpu_close"]["names"])
    assert one.machine.sockets == 2 and str(one.dimms) == "16x32"
    with pytest.raises(SeventyError, match=r"no platform .R720.*R730"):
        owned("R720 8x16")
    platforms = [owned(f"DL380 {cpu} 8x32")[0].platform for cpu in ("2690v4", "6248")]
    assert [each and each.name for each in platforms] == ["HPE ProLiant DL380 Gen9", "HPE ProLiant DL380 Gen10"]


@pytest.mark.parametrize("memory", ["1024", "1100", "2048GB", "4TB", "8192"])
@pytest.mark.parametrize("cpu", ["E5-2680 v4", "EPYC 9654", "Apple M2 Max", "no such CPU 1"])
def test_totals_over_a_terabyte_are_read(cpu: str, memory: str) -> None:
    assert machine_from_words(cpu, 1, memory, 3.0).memory_bytes is not None
    with pytest.raises(SeventyError, match="cannot be right"):
        parse_dimms("9TB")


@pytest.mark.parametrize(
    "text", ["两台 R730 各 128G，和一台 5950X 64G", "5950X 64G, R730 128G", "R730 128G and a 5950X with 64GB"]
)
def test_a_cpu_that_does_not_go_into_the_platform_is_another_machine(text: str) -> None:
    found = {(each.platform.name if each.platform else None): each for each in owned(text)}
    assert set(found) == {"Dell PowerEdge R730", None}
    sizes = {each.dimms.total_gb for each in found.values() if each.dimms}
    assert sizes == {64, 128} and not any("misfit" in key for each in found.values() for key, _ in each.machine.notes)


@pytest.mark.parametrize(
    "text, dimms",
    [("Threadripper 3970X 256GB", "8x32"), ("Z440 with i7-6850K 128GB", "4x32"), ("Z440 2680v4 256G", "4x64")],
)
def test_registered_modules_only_where_the_cpu_takes_them(text: str, dimms: str) -> None:
    assert str(owned(text)[0].dimms) == dimms


def test_every_machine_keeps_its_own_memory() -> None:
    # A total that equals another machine's modules is not that one said twice.
    found = [str(each.dimms) for each in owned("Z440 2680v4 4x16, SER8 64G; M4 Pro 64G")]
    assert found == ["4x16", "2x32", "1x64"]


def test_a_cpu_the_catalogue_lacks_is_said_and_stood_in_for_by_its_platforms() -> None:
    for text in ("Z440 E5-2680 v9 64G", "E5-2860 v4 Z440 64G"):
        (one,) = owned(text)
        said = dict(one.machine.notes)
        assert said["cpu_stand_in"]["taken"] == "Intel Xeon E5-2680 v4"
        assert "E5-2680 v4" in str(said["cpu_close"]["names"])
        assert one.machine.channels == 4


@pytest.mark.parametrize("text, said", [("M3 Max", "how much"), ("Xeon Max 9480", "memory must be said too")])
def test_memory_that_nobody_could_guess_is_asked_for(text: str, said: str) -> None:
    with pytest.raises(SeventyError, match=said) as caught:
        owned(text)
    assert "--memory" not in str(caught.value)
