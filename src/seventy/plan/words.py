"""What plan and predict say, in English and Chinese: one message per key, `{names}` filled in by `say`."""

import os
from collections.abc import Mapping

LANGUAGES = ("en", "zh")


def language(wanted: str | None) -> str:
    """The language to speak: the one asked for, else the locale's, else English."""
    text = (wanted or os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or "").lower()
    return "zh" if text.startswith("zh") else "en"


def say(key: str, lang: str, values: Mapping[str, object] | None = None) -> str:
    """The message of this key; numbers are rounded to what is worth reading."""
    text = MESSAGES[key][LANGUAGES.index(lang)]
    shown = {name: number(value) if isinstance(value, float) else value for name, value in (values or {}).items()}
    return text.format(**shown)


def number(value: float) -> str:
    """Three figures, no exponent: 0.52, 4.31, 28.7, 154, 2052."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


MESSAGES: dict[str, tuple[str, str]] = {
    # machine
    "memory_slowed": (
        "{cpu} runs these modules at {runs} MT/s, not the {rated} printed on them.",
        "{cpu} 只能让这些内存条跑在 {runs} MT/s,而不是标称的 {rated}。",
    ),
    "two_per_channel": (
        "Two DDR5 modules on a channel usually run at {runs} MT/s.",
        "DDR5 每通道插两条时通常只能跑 {runs} MT/s。",
    ),
    "memory_assumed": (
        "Memory is not given: {channels} channels at {mts} MT/s are assumed (--memory 4x16@2400 says what you have).",
        "未给出内存:按 {channels} 通道 {mts} MT/s 估算(用 --memory 4x16@2400 说明实际配置)。",
    ),
    "channels_empty": (
        "{empty} of {total} memory channels are empty: filling them raises decode speed in proportion.",
        "{total} 个内存通道空着 {empty} 个:插满后生成速度按比例提高。",
    ),
    "links_limit": (
        "{cpu} cannot read faster than about {gbs} GB/s: its links, not its channels, are the limit.",
        "{cpu} 的读取上限约 {gbs} GB/s:瓶颈是片内互连,不是内存通道。",
    ),
    "cpu_unknown": (
        "The catalogue has no CPU {cpu!r}: predicted from its memory alone, with a wider range.",
        "目录里没有 CPU {cpu!r}:仅按内存估算,区间放宽。",
    ),
    "cpu_close": ("Names close to it: {names}.", "相近的型号:{names}。"),
    "not_measured": (
        "This machine's bandwidth has not been measured: its CPU's most is assumed.",
        "本机内存带宽尚未实测:按 CPU 上限估算。",
    ),
    # reasons
    "bound_memory": (
        "memory-bound: each token reads {read} GB, at about {gbs} GB/s ({share} % of the {peak} GB/s peak)",
        "受内存带宽限制:每个词元读 {read} GB,有效带宽约 {gbs} GB/s(峰值 {peak} GB/s 的 {share}%)",
    ),
    "bound_compute": (
        "compute-bound: {ops} billion operations a token take longer than reading its {read} GB",
        "受算力限制:每个词元 {ops} G 次运算,比读取 {read} GB 更慢",
    ),
    "bound_barriers": (
        "bound by thread barriers: {ms} ms of each token is waiting between operations; fewer threads would help",
        "受线程同步限制:每个词元有 {ms} 毫秒在等待;减少线程数会更快",
    ),
    "bound_ssd": (
        "runs from SSD: {needs} GB are needed, {have} GB are there; the rest is read from disk for each token",
        "从固态硬盘运行:需要 {needs} GB,只有 {have} GB;其余部分每个词元都要读盘",
    ),
    "no_fit": (
        "does not fit: {needs} GB are needed at this context, {have} GB are there",
        "装不下:此上下文需要 {needs} GB,只有 {have} GB",
    ),
    "fits": ("fits: {needs} GB needed{of}", "装得下:需要 {needs} GB{of}"),
    "of_memory": (" of {have} GB", ",共 {have} GB"),
    "seventy_aim": (
        "seventy's own figures are its design aim, not yet measurements; llama.cpp's rest on published ones.",
        "seventy 引擎的数字是设计目标,尚未实测;llama.cpp 的数字来自公开实测。",
    ),
    # predict
    "p_decode": ("decode", "生成速度"),
    "p_prefill": ("prefill", "预填充速度"),
    "p_first": ("first token", "首词元时间"),
    "p_unit": ("tok/s", "词元/秒"),
    "p_prompt": ("s after a 1000-token prompt", "秒(1000 词元提示)"),
    "p_low_high": ("low - high", "下限 - 上限"),
    "p_why": ("why", "原因"),
    "p_memory": ("memory", "内存"),
    "p_note": ("note", "注意"),
    "p_on": ("{model} {quant} on {machine}, {memory}; engine {engine}, context {context}",
             "{model} {quant},机器 {machine},{memory};引擎 {engine},上下文 {context}"),
    "p_channels": ("{channels} of {total} channels at {mts} MT/s", "{total} 通道用 {channels} 个,{mts} MT/s"),
    "p_measured": ("{gbs} GB/s measured", "实测 {gbs} GB/s"),
    # article
    "a_title": (
        "The article's builds ({date}, {source}) and what to expect of a 70B at Q4_K_M, llama.cpp-class engine:",
        "文章中的方案({date},{source}),以及 70B Q4_K_M 在 llama.cpp 类引擎上的预测速度:",
    ),
    "a_build": ("build", "方案"),
    "a_cpu": ("CPU", "处理器"),
    "a_memory": ("memory", "内存"),
    "a_price": ("CNY", "价格(元)"),
    "a_channels": ("channels", "通道"),
    "a_range": ("70B tok/s", "70B 词元/秒"),
    "a_mid": ("mid", "中值"),
    "a_filled": ("filled", "插满后"),
    "a_prefill": ("prefill", "预填充"),
    "a_mark": ("PassMark", "PassMark"),
    "a_mark_price": ("mark/CNY", "分/元"),
    "a_channels_of": ("memory channels", "内存通道"),
    "a_peak": ("GB/s", "GB/s"),
    "a_speed_price": ("tok/s per 1000 CNY", "每千元词元/秒"),
    "a_mistake": (
        "The mistake: one stick in four channels gives {one} tok/s, four sticks {four}: {times} times as much.\n"
        "Its owner then measured 0.52 (0.61 at first) with four sticks. The hardware allows {low} - {high};\n"
        "the rest was settings: Windows, ollama's thread count, pages and a growing context. Another owner of\n"
        "equal memory got 1.4 with a 34 GB file.",
        "错在哪里:四通道只插一条是 {one} 词元/秒,插四条是 {four},相差 {times} 倍。\n"
        "作者后来插满四条实测 0.52(首问 0.61);硬件本身可达 {low} - {high},\n"
        "其余损失在设置:Windows、ollama 的线程数、内存页以及不断变长的上下文。\n"
        "另一位内存带宽相同的用户用 34 GB 的文件测得 1.4。",
    ),
    "a_needs": (
        "Memory for a 70B at {context} tokens: {file} GB weights + {kv} GB KV cache + 2 GB system = {total} GB.",
        "70B 在 {context} 词元上下文时的内存:权重 {file} GB + KV 缓存 {kv} GB + 系统 2 GB = {total} GB。",
    ),
    "a_needs_not": (
        "So 64 GB are enough for it and 256 GB are not needed; 256 GB serve {other} at Q2_K ({other_gb} GB).",
        "所以 64 GB 就够,不需要 256 GB;256 GB 是给 {other} Q2_K({other_gb} GB)用的。",
    ),
    "a_ranking": (
        "Its CPU ranking: PassMark per yuan against 70B decode with every channel filled (one socket):",
        "文章的 CPU 排名:每元 PassMark 分数,对比单路插满通道时的 70B 生成速度:",
    ),
}  # fmt: skip
