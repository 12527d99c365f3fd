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
        "{cpu} 只能让这些内存条跑在 {runs} MT/s，而不是标称的 {rated}。",
    ),
    "too_many_sockets": (
        "{cpu} is listed for at most {most} socket(s); predicted for {sockets} all the same.",
        "{cpu} 标称最多 {most} 路；仍按 {sockets} 路估算。",
    ),
    "two_per_channel": (
        "Two DDR5 modules on a channel usually run at {runs} MT/s.",
        "DDR5 每通道插两条时通常只能跑 {runs} MT/s。",
    ),
    "memory_assumed": (
        "Memory is not given: {channels} channels at {mts} MT/s are assumed (--memory 4x16@2400 says what you have).",
        "未给出内存：按 {channels} 通道 {mts} MT/s 估算（用 --memory 4x16@2400 说明实际配置）。",
    ),
    "channels_empty": (
        "{empty} of {total} memory channels are empty: filling them raises decode speed in proportion.",
        "{total} 个内存通道空着 {empty} 个：插满后生成速度按比例提高。",
    ),
    "links_limit": (
        "{cpu} cannot read faster than about {gbs} GB/s: its links, not its channels, are the limit.",
        "{cpu} 的读取上限约 {gbs} GB/s：瓶颈是片内互连，不是内存通道。",
    ),
    "cpu_unknown": (
        "The catalogue has no CPU {cpu!r}: predicted from its memory alone, with a wider range.",
        "目录里没有 CPU {cpu!r}：仅按内存估算，区间放宽。",
    ),
    "cpu_close": ("Names close to it: {names}.", "相近的型号：{names}。"),
    "not_measured": (
        "This machine's bandwidth has not been measured: its CPU's most is assumed.",
        "本机内存带宽尚未实测：按 CPU 上限估算。",
    ),
    # reasons
    "bound_memory": (
        "memory-bound: each {step} reads {read}, at about {gbs} GB/s ({share} % of the {peak} GB/s peak)",
        "受内存带宽限制：每{step}读 {read}，有效带宽约 {gbs} GB/s（峰值 {peak} GB/s 的 {share}%）",
    ),
    "bound_compute": (
        "compute-bound: {ops} billion operations a {step} take longer than reading its {read}",
        "受算力限制：每{step} {ops} G 次运算，比读取 {read} 更慢",
    ),
    "bound_barriers": (
        "bound by thread barriers: {ms} ms of each {step} is waiting between operations; fewer threads would help",
        "受线程同步限制：每{step}有 {ms} 毫秒在等待；减少线程数会更快",
    ),
    "bound_ssd": (
        "runs from SSD: {needs} are needed, {room} are free for it; the rest is read from disk for each {step}",
        "从固态硬盘运行：需要 {needs}，可用 {room}；其余部分每{step}都要读盘",
    ),
    "step": ("token", "个词元"),
    "step_users": ("step of {users} tokens", "步（{users} 个词元）"),
    "no_fit": (
        "does not fit: needs {needs} with a context of {context}; {room} of {have} are free for it",
        "装不下：上下文 {context} 时需要 {needs}；内存共 {have}，可用 {room}",
    ),
    "fits": (
        "fits: needs {needs} with a context of {context}; {room} of {have} are free for it",
        "装得下：上下文 {context} 时需要 {needs}；内存共 {have}，可用 {room}",
    ),
    "needs": ("needs {needs} with a context of {context}", "上下文 {context} 时需要 {needs}"),
    # what seventy cannot run, and how a model is got
    "r_isa": ("seventy has no kernels for {isa} CPUs", "seventy 没有 {isa} 处理器的内核"),
    "r_architecture": (
        "seventy does not run the architecture {architecture} yet",
        "seventy 还不能运行 {architecture} 架构",
    ),
    "r_experts": (
        "seventy does not run {architecture} models that are mixtures of experts",
        "seventy 不能运行混合专家的 {architecture} 模型",
    ),
    "r_types": ("seventy cannot multiply tensors of type {types}", "seventy 不能计算 {types} 类型的张量"),
    "r_images": (
        "the file also holds a model of images, which seventy has no use for: get it without, by its name",
        "文件中还有图像模型，seventy 用不到：请按名字下载不带图像的文件",
    ),
    "r_file": ("{error}", "{error}"),
    "only_llama_cpp": (
        "These figures are llama.cpp's: {reason}.",
        "以上是 llama.cpp 的速度：{reason}。",
    ),
    "no_seventy": (
        "{model} {quant}: {reason}; --engine llama.cpp shows what llama.cpp would do.",
        "{model} {quant}：{reason}；用 --engine llama.cpp 查看 llama.cpp 的速度。",
    ),
    "get_it": ("To get it: {command}", "获取模型：{command}"),
    "seventy_aim": (
        "seventy's own figures are its design aim, not yet measurements; llama.cpp's rest on published ones.",
        "seventy 引擎的数字是设计目标，尚未实测；llama.cpp 的数字来自公开实测。",
    ),
    # predict
    "p_decode": ("decode", "生成速度"),
    "p_together": ("all users", "全部用户"),
    "p_prefill": ("prefill", "预填充速度"),
    "p_first": ("first token", "首词元时间"),
    "p_unit": ("tok/s", "词元/秒"),
    "p_prompt": ("s after a 1000-token prompt", "秒（1000 词元提示）"),
    "p_why": ("why", "原因"),
    "p_memory": ("memory", "内存"),
    "p_on": ("{model} {quant} on {machine}, {memory}; engine {engine}, context {context}",
             "{model} {quant}，机器 {machine}，{memory}；引擎 {engine}，上下文 {context}"),
    "p_channels": ("{channels} of {total} channels at {mts} MT/s", "{total} 通道用 {channels} 个，{mts} MT/s"),
    "p_measured": ("{gbs} GB/s measured", "实测 {gbs} GB/s"),
    # article
    "a_title": (
        "The article's builds ({date}, {source}) and what to expect of a 70B at Q4_K_M, llama.cpp-class engine:",
        "文章中的方案（{date}，{source}），以及 70B Q4_K_M 在 llama.cpp 类引擎上的预测速度：",
    ),
    "a_build": ("build", "方案"),
    "a_cpu": ("CPU", "处理器"),
    "a_memory": ("memory", "内存"),
    "a_price": ("CNY", "价格（元）"),
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
        "错在哪里：四通道只插一条是 {one} 词元/秒，插四条是 {four}，相差 {times} 倍。\n"
        "作者后来插满四条实测 0.52（首问 0.61）；硬件本身可达 {low} - {high}，\n"
        "其余损失在设置：Windows、ollama 的线程数、内存页以及不断变长的上下文。\n"
        "另一位内存带宽相同的用户用 34 GB 的文件测得 1.4。",
    ),
    "a_needs": (
        "Memory for a 70B at {context} tokens: {file} weights + {kv} KV cache + {engine} engine = {total}.",
        "70B 在 {context} 词元上下文时的内存：权重 {file} + KV 缓存 {kv} + 引擎 {engine} = {total}。",
    ),
    "a_needs_not": (
        "So modules of 64 GB are enough for it and 256 GB are not needed; 256 GB serve {other} at Q2_K ({other_size}).",
        "所以 64 GB 内存条就够，不需要 256 GB；256 GB 是给 {other} Q2_K（{other_size}）用的。",
    ),
    "a_ranking": (
        "Its CPU ranking: PassMark per yuan against 70B decode with every channel filled (one socket):",
        "文章的 CPU 排名：每元 PassMark 分数，对比单路插满通道时的 70B 生成速度：",
    ),
    # plan: headline and table
    "h_line": (
        "{model} {quant} ({size}). Prices: {region}, {currency}, as of {month}.",
        "{model} {quant}（{size}）。价格：{region}，{currency}，{month} 行情。",
    ),
    "h_stale": (
        "! These prices are {age} months old, and memory has risen three- to fivefold since 2025: --ram-factor 4 shows "
        "what that does, --prices my.toml brings your own.",
        "! 这些价格已过去 {age} 个月，2025 年以来内存涨了三到五倍："
        "用 --ram-factor 4 看影响，用 --prices my.toml 填自己的价格。",
    ),
    "h_factor": ("Memory prices are multiplied by {factor}.", "内存价格已乘以 {factor}。"),
    "t_marks": (
        "~ a part has only a price range, + a part without a price is not counted, * a price older than its snapshot; "
        "ch: memory channels filled.",
        "~ 有配件只有价格区间，+ 有配件没有价格未计入，* 有价格早于行情；通道：已插满的内存通道。",
    ),
    "c_machine": ("machine", "机型"),
    "c_cpu": ("CPU", "处理器"),
    "c_memory": ("memory", "内存"),
    "c_channels": ("ch", "通道"),
    "c_price": ("price", "价格"),
    "c_speed": ("tok/s", "词元/秒"),
    "c_range": ("range", "区间"),
    "c_prefill": ("prefill", "预填充"),
    "c_watts": ("idle/load W", "待机/满载 W"),
    "c_kwh": ("kWh/day", "度/天"),
    "c_years": ("{years} y cost", "{years} 年总成本"),
    "c_noise": ("noise", "噪音"),
    "c_litres": ("litres", "体积（升）"),
    "c_million": ("per 1M tokens", "每百万词元"),
    "noise_silent": ("silent", "静音"),
    "noise_quiet": ("quiet", "安静"),
    "noise_office": ("office", "办公室级"),
    "noise_loud": ("loud", "吵"),
    "noise_unknown": ("unknown", "未知"),
    "unknown": ("unknown", "未知"),
    "cond_new": ("new", "全新"),
    "cond_used": ("used", "二手"),
    # plan: the chosen build
    "d_title": ("Best: {name}, {price} {currency}", "首选：{name}，{price} {currency}"),
    "d_no_price": ("no price known", "没有已知价格"),
    "d_old": ("[{months} months older than the rest]", "[比其余价格早 {months} 个月]"),
    "d_speed": (
        "Speed: {decode} tok/s ({low} - {high}), prompts {prefill} tok/s, first token of a 1000-token prompt in "
        "{first} s; {have} of {total} memory channels filled.",
        "速度：{decode} 词元/秒（{low} - {high}），预填充 {prefill} 词元/秒，1000 词元提示的首词元时间 {first} 秒；"
        "内存通道插了 {have}/{total}。",
    ),
    "d_about": ("estimated ", "估算 "),
    "d_power": (
        "Power: {about}{idle} W idle, {load} W under load; {kwh} kWh a day at {hours} h of load; {year} {currency} a "
        "year at {tariff} {currency}/kWh; {over} {currency} over {years} years with the machine.",
        "功耗：{about}待机 {idle} W，满载 {load} W；每天满载 {hours} 小时，共 {kwh} 度；电价 {tariff} {currency}/度，"
        "每年电费 {year} {currency}；连同机器 {years} 年共 {over} {currency}。",
    ),
    "d_million": (
        "A million tokens: {all} {currency} with the machine, {power} {currency} of electricity alone; ",
        "每百万词元：连同机器 {all} {currency}，仅电费 {power} {currency}；",
    ),
    "d_api": ("by API {prices}.", "API 价格 {prices}。"),
    "d_api_none": ("no API price known for this model.", "没有该模型的 API 价格。"),
    "d_body": ("Body: {noise}, {litres} litres.", "机身：{noise}，{litres} 升。"),
    "d_growth": (
        "Room to grow: {free} DIMM slots free, {most} GB at most{second}; PCIe: {pcie}.",
        "扩展：空闲内存插槽 {free} 个，最大 {most} GB{second}；PCIe：{pcie}。",
    ),
    "d_second_price": (", a second CPU ({price} {currency})", "，可加第二颗处理器（{price} {currency}）"),
    "d_big": (
        "256 GB, should you want them: {modules} for {price} {currency}.",
        "若要 256 GB：{modules}，{price} {currency}。",
    ),
    "d_second": (", a second CPU", "，可加第二颗处理器"),
    "d_gpu": (
        "A used P106-class card would add {low} - {high} {currency}, about {idle} W idle and up to {load} W under "
        "load.",
        "加一块二手 P106 级显卡：{low} - {high} {currency}，待机约多 {idle} W，满载最多多 {load} W。",
    ),
    "f_title": ("Price and speed, nothing both cheaper and faster:", "价格与速度的帕累托前沿（没有更便宜又更快的）："),
    # plan: warnings
    "n_channels": (
        "{empty} of {total} memory channels are empty: {dimms} would give {then} instead of {now} tok/s for about "
        "{more} more.",
        "{total} 个内存通道空着 {empty} 个：改成 {dimms}，速度从 {now} 升到 {then} 词元/秒，约多花 {more}。",
    ),
    "n_context": (
        "{have} of memory hold about {most} tokens of context; {context} tokens need {needs}.",
        "{have} 内存大约能容纳 {most} 词元上下文；{context} 词元需要 {needs}。",
    ),
    "n_loud": (
        "{platform} is a rack server: its fans are heard through a wall. Not for a bedroom.",
        "{platform} 是机架服务器，隔墙都能听见风扇声，不要放卧室。",
    ),
    "n_mixture": (
        "{model} ({params} B, {active} B active) would run at {speed} tok/s on the same box: {gain} times as fast.",
        "同一台机器跑 {model}（{params}B，激活 {active}B）可达 {speed} 词元/秒：快 {gain} 倍。",
    ),
    "n_stale": (
        "The price of {part} is from {date}, {months} months before {month}: check it before you buy.",
        "{part} 的价格是 {date} 的，比 {month} 早 {months} 个月，下单前请核实。",
    ),
    "n_range": (
        "Some parts have only a range: the total lies between {low} and {high} {currency}.",
        "部分配件只有价格区间：总价在 {low} 到 {high} {currency} 之间。",
    ),
    "n_blank": (
        "Not in the price, because nobody has one: {parts} (a boxed CPU brings its own).",
        "总价未含没有价格的配件：{parts}（盒装处理器自带）。",
    ),
    "n_watts": (
        "Watts are estimated from kind and rated power: nobody has published a measurement.",
        "功耗按机型和额定功率估算，没有公开实测。",
    ),
    "n_numa": (
        "Two sockets: most engines lose a third to two thirds here unless each socket reads its own memory.",
        "双路：多数引擎若不让每颗处理器读自己的内存，会损失三分之一到三分之二。",
    ),
    # plan: what was counted, what gives
    "z_counted": (
        "{looked} machines looked at in {seconds} s: {small} too small for the model, {unpriced} without a price for "
        "every part, {priced} priced, {kept} within your limits.",
        "{seconds} 秒内考察 {looked} 种组合：{small} 种内存不够，{unpriced} 种有配件没有价格，{priced} 种有价格，"
        "{kept} 种符合要求。",
    ),
    "z_unpriced": (
        "{count} platforms would serve but have no price here: {names} ... (--prices my.toml)",
        "另有 {count} 个平台可用但没有价格：{names} 等（--prices my.toml）",
    ),
    "n_title": (
        "Nothing meets all of this. Nearest, and what gives:",
        "没有完全符合的。最接近的方案，以及要放弃什么：",
    ),
    "n_line": ("  {name}: {price} {currency}, {speed} tok/s", "  {name}：{price} {currency}，{speed} 词元/秒"),
    "n_smaller": (
        "Within the same limits a smaller model runs: {model} {quant} at {speed} tok/s on {name}, {price} {currency}.",
        "同样的条件可以跑小一些的模型：{model} {quant}，{speed} 词元/秒，{name}，{price} {currency}。",
    ),
    "n_none": (
        "No machine of the catalogue holds this model with a price for every part in this region.",
        "目录中没有能装下该模型且所有配件都有价格的机器。",
    ),
    "x_budget": ("the price: {value} instead of {most} {currency}", "价格：{value}，而不是 {most} {currency}"),
    "x_watts": ("the power: {value} W under load instead of {most} W", "功耗：满载 {value} W，而不是 {most} W"),
    "x_litres": ("the size: {value} litres instead of {most}", "体积：{value} 升，而不是 {most} 升"),
    "x_litres_unknown": ("the size: not known", "体积：未知"),
    "x_speed": ("the speed: {value} tok/s instead of {least}", "速度：{value} 词元/秒，而不是 {least}"),
    "x_noise": ("the noise: {noise} instead of {most}", "噪音：{noise}，而不是 {most}"),
    "x_noise_unknown": ("the noise: not known, {most} wished for", "噪音：未知，要求 {most}"),
    "x_rack": ("the place: a rack server", "位置：机架服务器"),
    "x_not_rack": ("the place: no rack server", "位置：不是机架服务器"),
    # upgrades
    "u_title": (
        "{name}, {memory}: {speed} tok/s now. What adding brings:",
        "{name}，{memory}：现在 {speed} 词元/秒。升级效果：",
    ),
    "u_step": ("step", "方案"),
    "u_then": ("tok/s", "词元/秒"),
    "u_gain": ("gain", "提升"),
    "u_price": ("price", "价格"),
    "u_fill": ("fill every channel: {dimms}", "插满所有通道：{dimms}"),
    "u_faster": ("faster memory: {dimms}", "换更快的内存：{dimms}"),
    "u_more": ("enough memory: {dimms}", "加够内存：{dimms}"),
    "u_cpu": ("another CPU: {cpu}", "换处理器：{cpu}"),
    "u_second": ("a second {cpu} with {dimms}", "加第二颗 {cpu}，内存 {dimms}"),
    "u_mixture": ("a mixture of experts instead: {model}", "改用混合专家模型：{model}"),
    "u_settings": (
        "Before you buy: check that all cores work, that the model's pages are spread over both sockets, that the "
        "governor is not powersave; a bad setting costs as much as an empty channel.",
        "先别急着买：确认所有核心都在干活、双路时内存页均匀分布、调速器不是 powersave；设置不当和空通道一样慢。",
    ),
    "u_nothing": ("Nothing the catalogue knows would make it faster.", "目录里没有能让它更快的升级。"),
    # html report
    "r_title": ("What to buy for {model}", "跑 {model} 买什么"),
    "r_front": ("Speed over price", "速度与价格"),
    "r_front_x": ("price, {currency}", "价格，{currency}"),
    "r_front_y": ("decode, tok/s", "生成速度，词元/秒"),
    "r_on_front": ("on the front", "在前沿上"),
    "r_off_front": ("other builds", "其他方案"),
    "r_years": ("Cost over the years", "多年总成本"),
    "r_years_x": ("years", "年"),
    "r_years_y": ("machine and electricity, {currency}", "机器加电费，{currency}"),
    "r_all": ("Builds", "方案列表"),
    "r_sort": ("Tap a heading to sort.", "点击表头排序。"),
    "r_best": ("The best of them", "首选方案"),
    "r_how": (
        "Speeds are predictions: bytes read per token over the memory bandwidth this class of machine reaches; four of "
        "five measurements fell within the range given. Prices are snapshots with date and source.",
        "速度是预测值：每词元读取字节数除以同类机器能达到的内存带宽；五次实测中有四次落在所给区间内。价格是带日期和来源的快照。",
    ),
    "a_power": (
        "Electricity, kWh a day with 6 h of load: {figures}. The article says about 6 for the servers, 1.5 for the "
        "workstation.",
        "每天用电（满载 6 小时，度）：{figures}。文章的说法：服务器约 6 度，工作站约 1.5 度。",
    ),
    "a_same": ("What seventy would have bought for the same money, prices of the same month:",
               "同样的钱、同月价格，seventy 会买什么："),
    "a_same_any": (
        "  {name} ({budget}): {build}, {price} CNY, {speed} tok/s, {kwh} kWh a day",
        "  {name}（{budget}）：{build}，{price} 元，{speed} 词元/秒，每天 {kwh} 度",
    ),
    "a_same_home": (
        "    or for a home: {build}, {price} CNY, {speed} tok/s, {kwh} kWh a day",
        "    放家里则选：{build}，{price} 元，{speed} 词元/秒，每天 {kwh} 度",
    ),
    # models
    "m_model": ("model", "模型"),
    "m_params": ("B params", "参数（B）"),
    "m_active": ("B active", "激活（B）"),
    "m_size": ("Q4_K_M, GB", "Q4_K_M,GB"),
    "m_quants": ("quants with a known size", "已知大小的量化"),
}  # fmt: skip
