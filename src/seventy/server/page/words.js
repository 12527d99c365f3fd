// What the page says, in both languages.

const WORDS = {
  en: {
    new: "New chat", settings: "Settings", menu: "Conversations", attach: "Add files", ask: "Ask something",
    send: "Send", stop: "Stop", system: "System prompt", temperature: "Temperature", repeat: "Repeat penalty",
    longest: "Longest answer (tokens)", seed: "Seed", theme: "Colours", auto: "As the system", light: "Light",
    dark: "Dark", model: "Model", key: "API key", done: "Done", cancel: "Cancel",
    keyNote: "Kept in this browser only. So are your conversations, unless the server keeps them, too.",
    drop: "Drop files here", copy: "Copy", copied: "Copied", edit: "Edit", again: "Regenerate", tryAgain: "Try again",
    remove: "Delete", untitled: "New chat", goOn: "Go on", goOnInNew: "Continue in a new chat",
    earlier: "Earlier version", later: "Later version", you: "You", table: "Table", progress: "Progress",
    thinking: time => time ? `Thoughts, ${time}` : "Thoughts", answered: "The answer is there.",
    hello: "What would you like to know?",
    helloNote: "Runs on your own machine. Nothing you write leaves it.",
    waiting: n => n ? `Waiting: ${n} before you` : "Waiting ...",
    reading: (done, total, left) => `Reading your text: ${done} of ${total} tokens` + (left ? `, ${left} left` : ""),
    reconnecting: "The connection broke; reading on as soon as it is back ...",
    modelLoads: "The model is loading; your question is next ...",
    absent: "loaded when you ask", loading: (what, share) => `The model is loading: ${what}, ${share} %`,
    loadingWhat: { "loading weights": "weights", "compiling kernels": "compiling for this CPU", starting: "starting" },
    seconds: s => s < 90 ? `${Math.max(1, Math.round(s))} s` : `${Math.round(s / 60)} min`,
    speed: v => `${v} tok/s`, expected: v => `about ${v} tok/s`, queue: n => `${n} waiting`, running: n => `${n} running`,
    memory: (used, total) => `memory ${used} of ${total} GB`,
    context: (used, total) => `${used} of ${total} tokens of context are used`,
    finished: (n, speed, read, cached, wait) =>
      `${n} tokens at ${speed} tok/s` + (wait ? `, first after ${wait}` : "") + `; read ${read}` + (cached ? `, ${cached} known` : ""),
    drafted: (right, all, ms) => `; ${Math.round(100 * right / all)} % of them guessed ahead`
      + (ms >= 50 ? `, ${(ms / 1000).toFixed(1)} s saved` : ""),
    ends: {
      stopped: "Stopped.", length: "Cut at its longest.", broken: "The server was restarted: this is what came.",
      alone: "Stopped: nobody was reading for ten minutes.", gave_way: "Stopped while nobody was reading: others waited.",
    },
    errors: {
      offline: "The server does not answer. Is it running?", lost: "The server no longer has this answer.",
      invalid_api_key: "This server wants an API key.", "401": "This server wants an API key.",
      context_length_exceeded: "This is longer than the model's context. Shorten it, or ask in a new chat.",
      queue_full: "Too many are waiting. Try again in a while.",
      body_too_large: "This is larger than the server takes.",
    },
    leftOut: "The model no longer reads what is above: the context is full.",
    tooLong: (tokens, room) => `This has ${tokens} tokens; the context holds ${room}.`,
    wantsKey: "This server wants an API key", keyAsk: "An API key, or a code from another of your devices",
    wrongKey: "This server does not know this key.",
    wrongCode: "The code is wrong, was used, or is older than ten minutes.",
    pairAsk: "This link brings another key. Use it here instead of yours? What you write then belongs to that key's user.",
    signedIn: name => `You are ${name}.`, devices: "Add a device", forWhom: "For",
    codeNote: address => `Scan this with the other device, or open ${address} there and enter the code. Good once, for ten minutes.`,
    onlyHere: "The server listens to its own machine only: for other devices start it with --host 0.0.0.0.",
    qrCode: link => `QR code of ${link}`,
    notText: name => `There is no text in ${name}.`, tooLarge: name => `${name} is too large.`,
    noImages: name => `This model reads no images: ${name}.`, readingFile: name => `${name} ...`,
    removeFile: name => `Remove ${name}`, letters: n => n < 10_000 ? `${n} letters` : `${Math.round(n / 1000)}k letters`,
    removeAsk: title => `Delete "${title}"?`,
    historyNote: days => `The server keeps your conversations for ${days} days, so that your other devices have them. Other users do not see them; the owner of the machine could read them.`,
    forgetAll: "Delete all from the server", forgetAsk: "Delete all your conversations, from the server and from your devices?",
    historyFull: "The server has no more room for your conversations: this one is kept in this browser only.",
    models: "Models", pull: "Fetch", pullName: "Fetch a model by its name", load: "Load", use: "Use",
    states: { absent: "not loaded", loading: "loading", ready: "loaded", leaving: "leaving", failed: "failed" },
    pulling: (done, total, speed, left) =>
      `${done} of ${total} GB` + (speed ? `, ${speed} MB/s` : "") + (left ? `, ${left} left` : ""),
    looking: "Looking for it ...", pulled: name => `${name} is here.`, pullStopped: "Stopped; fetch it again to go on.",
    useTools: "Let the model ask for tools of this machine", runCall: "Run", refuseCall: "Do not run",
    callStates: { wants: "the model asks for this; run it?", running: "running ...", done: "done", refused: "not run" },
    callNotes: {
      changed: "What the tool says of itself has changed: look at it before you run it.",
      asks: "What the tool says of itself has changed since it was allowed: look at it before you run it.",
      offline: "The server does not answer. Try again.",
    },
    callAbout: text => `Its server says of it: ${text}`,
    search: "Search", notFound: "Nothing found.", exportAll: "Export all", exportOne: "Export as Markdown", import: "Import",
    imported: n => `${n} conversations were imported.`, notImported: name => `There are no conversations in ${name}.`,
  },
  zh: {
    new: "新对话", settings: "设置", menu: "对话列表", attach: "添加文件", ask: "想问点什么？",
    send: "发送", stop: "停止", system: "系统提示词", temperature: "温度", repeat: "重复惩罚",
    longest: "回答上限（token）", seed: "随机种子", theme: "配色", auto: "跟随系统", light: "浅色",
    dark: "深色", model: "模型", key: "API 密钥", done: "完成", cancel: "取消",
    keyNote: "只保存在本浏览器中。对话也是如此，除非服务器另外保存。",
    drop: "把文件拖到这里", copy: "复制", copied: "已复制", edit: "编辑", again: "重新生成", tryAgain: "重试",
    remove: "删除", untitled: "新对话", goOn: "继续写", goOnInNew: "在新对话中继续",
    earlier: "上一版本", later: "下一版本", you: "你", table: "表格", progress: "进度",
    thinking: time => time ? `思考过程，${time}` : "思考过程", answered: "回答已完成。",
    hello: "有什么想了解的？",
    helloNote: "模型就在你自己的机器上运行，你写的内容不会离开它。",
    waiting: n => n ? `排队中：前面还有 ${n} 个` : "等待中……",
    reading: (done, total, left) => `正在读提示词：${done} / ${total} token` + (left ? `，还需 ${left}` : ""),
    reconnecting: "连接中断，恢复后会继续读取……",
    modelLoads: "模型正在加载，加载完就回答你的问题……",
    absent: "提问时加载", loading: (what, share) => `模型加载中：${what}，${share} %`,
    loadingWhat: { "loading weights": "加载权重", "compiling kernels": "编译内核", starting: "启动" },
    seconds: s => s < 90 ? `${Math.max(1, Math.round(s))} 秒` : `${Math.round(s / 60)} 分钟`,
    speed: v => `${v} token/秒`, expected: v => `约 ${v} token/秒`, queue: n => `${n} 个排队`, running: n => `${n} 个运行中`,
    memory: (used, total) => `内存 ${used} / ${total} GB`,
    context: (used, total) => `上下文已用 ${used} / ${total} token`,
    finished: (n, speed, read, cached, wait) =>
      `${n} 个 token，${speed} token/秒` + (wait ? `，首 token 延迟 ${wait}` : "") + `；读提示词 ${read}` + (cached ? `，已缓存 ${cached}` : ""),
    drafted: (right, all, ms) => `；其中 ${Math.round(100 * right / all)} % 由预先猜中`
      + (ms >= 50 ? `，省 ${(ms / 1000).toFixed(1)} 秒` : ""),
    ends: {
      stopped: "已停止。", length: "已达长度上限。", broken: "服务器重启了，这是已写出的部分。",
      alone: "已停止：十分钟内无人阅读。", gave_way: "无人阅读时有人排队，已停止。",
    },
    errors: {
      offline: "服务器没有响应，它在运行吗？", lost: "服务器已不再保留这个回答。",
      invalid_api_key: "此服务器需要 API 密钥。", "401": "此服务器需要 API 密钥。",
      context_length_exceeded: "内容超出了模型的上下文。请缩短，或在新对话中提问。",
      queue_full: "排队的人太多，请稍后再试。",
      body_too_large: "内容超出了服务器接受的大小。",
    },
    leftOut: "上下文已满，模型不再读取以上内容。",
    tooLong: (tokens, room) => `这段内容有 ${tokens} 个 token，上下文只能容纳 ${room} 个。`,
    wantsKey: "此服务器需要 API 密钥", keyAsk: "API 密钥，或你另一台设备上的配对码",
    wrongKey: "服务器不认识这个密钥。",
    wrongCode: "配对码有误、已用过，或已超过十分钟。",
    pairAsk: "此链接会带来另一个密钥。要用它替换现有的密钥吗？之后的对话将属于那个密钥的用户。",
    signedIn: name => `你是 ${name}。`, devices: "添加设备", forWhom: "用户",
    codeNote: address => `用另一台设备扫描，或在其上打开 ${address} 并输入配对码。只能用一次，十分钟内有效。`,
    onlyHere: "服务器只监听本机；要让其他设备使用，请以 --host 0.0.0.0 启动。",
    qrCode: link => `${link} 的二维码`,
    notText: name => `${name} 中没有文本。`, tooLarge: name => `${name} 太大。`,
    noImages: name => `此模型不能读图片：${name}。`, readingFile: name => `${name}……`,
    removeFile: name => `移除 ${name}`, letters: n => n < 10_000 ? `${n} 字` : `${Math.round(n / 1000)} 千字`,
    removeAsk: title => `删除“${title}”？`,
    historyNote: days => `服务器会保存你的对话 ${days} 天，供你的其他设备使用。其他用户看不到，但这台机器的主人可以读取。`,
    forgetAll: "从服务器全部删除", forgetAsk: "要从服务器和你的所有设备上删除全部对话吗？",
    historyFull: "服务器上已没有空间保存你的对话：这个对话只保存在本浏览器中。",
    models: "模型", pull: "下载", pullName: "按名称下载模型", load: "加载", use: "使用",
    states: { absent: "未加载", loading: "加载中", ready: "已加载", leaving: "正在卸载", failed: "加载失败" },
    pulling: (done, total, speed, left) =>
      `${done} / ${total} GB` + (speed ? `，${speed} MB/s` : "") + (left ? `，还需 ${left}` : ""),
    looking: "正在查找……", pulled: name => `${name} 已下载。`, pullStopped: "已停止；再次下载会从断点继续。",
    useTools: "允许模型请求使用这台机器上的工具", runCall: "运行", refuseCall: "不运行",
    callStates: { wants: "模型请求使用此工具，要运行吗？", running: "运行中……", done: "已完成", refused: "未运行" },
    callNotes: {
      changed: "工具的说明已改变，运行前请先看清楚。",
      asks: "工具的说明自获准以来已改变，运行前请先看清楚。",
      offline: "服务器没有响应，请重试。",
    },
    callAbout: text => `工具服务器的说明：${text}`,
    search: "搜索", notFound: "没有找到。", exportAll: "全部导出", exportOne: "导出为 Markdown", import: "导入",
    imported: n => `已导入 ${n} 个对话。`, notImported: name => `${name} 中没有对话。`,
  },
};

function chosen() {
  try { return localStorage.getItem("seventy.language"); } catch { return null; }
}

let current = chosen() || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export const words = () => WORDS[current];
export const language = () => current;
export const otherLanguage = () => current === "zh" ? "English" : "中文";

export function switchLanguage() {
  current = current === "zh" ? "en" : "zh";
  try { localStorage.setItem("seventy.language", current); } catch { /* For as long as the page lives, then. */ }
}

/** Writes the words into everything marked with data-words, data-title or data-placeholder. */
export function translate(root = document) {
  document.documentElement.lang = current === "zh" ? "zh-CN" : "en";
  for (const one of root.querySelectorAll("[data-words]")) one.textContent = words()[one.dataset.words];
  for (const one of root.querySelectorAll("[data-title]")) {
    one.title = words()[one.dataset.title];
    one.setAttribute("aria-label", one.title);
  }
  for (const one of root.querySelectorAll("[data-placeholder]")) {
    one.placeholder = words()[one.dataset.placeholder];
    one.setAttribute("aria-label", one.placeholder);
  }
}
