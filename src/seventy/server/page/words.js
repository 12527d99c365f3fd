// What the page says, in both languages.

const WORDS = {
  en: {
    new: "New chat", settings: "Settings", menu: "Conversations", attach: "Add text files", ask: "Ask something",
    send: "Send", stop: "Stop", system: "System prompt", temperature: "Temperature", repeat: "Repeat penalty",
    longest: "Longest answer (tokens)", seed: "Seed", theme: "Colours", auto: "As the system", light: "Light",
    dark: "Dark", model: "Model", key: "API key", keyNote: "Kept in this browser only, like your conversations.", done: "Done",
    drop: "Drop text files here", copy: "Copy", copied: "Copied", edit: "Edit", again: "Regenerate", cancel: "Cancel",
    remove: "Delete", untitled: "New chat", thinking: "Thoughts", stopped: "Stopped.", cut: "Cut at its longest.",
    hello: "What would you like to know?",
    helloNote: "Runs on your own machine. Nothing you write leaves it.",
    waiting: n => n ? `Waiting: ${n} before you` : "Waiting ...",
    reading: (done, total, left) => `Reading your text: ${done} of ${total} tokens` + (left ? `, ${left} left` : ""),
    absent: "loaded when you ask", loading: (what, share) => `The model is loading: ${what}, ${share} %`,
    loadingWhat: { "loading weights": "weights", "compiling kernels": "compiling for this CPU", starting: "starting" },
    seconds: s => s < 90 ? `${Math.max(1, Math.round(s))} s` : `${Math.round(s / 60)} min`,
    speed: v => `${v} tok/s`, queue: n => `${n} waiting`, running: n => `${n} running`,
    memory: (used, total) => `memory ${used} of ${total} GB`,
    finished: (n, speed, read, cached, wait) =>
      `${n} tokens at ${speed} tok/s` + (wait ? `, first after ${wait}` : "") + `; read ${read}` + (cached ? `, ${cached} known` : ""),
    offline: "The server does not answer. Is it running?", wantsKey: "This server wants an API key: Settings.",
    notText: name => `${name} is not a text file.`, tooLarge: name => `${name} is larger than 1 MB.`,
    full: "The browser's storage is full: the oldest conversation was removed.",
    removeAsk: title => `Delete "${title}"?`,
    models: "Models", pull: "Fetch", pullName: "Fetch a model by its name", load: "Load", use: "Use",
    states: { absent: "not loaded", loading: "loading", ready: "loaded", leaving: "leaving", failed: "failed" },
    pulling: (done, total, speed, left) =>
      `${done} of ${total} GB` + (speed ? `, ${speed} MB/s` : "") + (left ? `, ${left} left` : ""),
    looking: "Looking for it ...", pulled: name => `${name} is here.`, pullStopped: "Stopped; fetch it again to go on.",
  },
  zh: {
    new: "新对话", settings: "设置", menu: "对话列表", attach: "添加文本文件", ask: "想问点什么？",
    send: "发送", stop: "停止", system: "系统提示词", temperature: "温度", repeat: "重复惩罚",
    longest: "回答上限（token）", seed: "随机种子", theme: "配色", auto: "跟随系统", light: "浅色",
    dark: "深色", model: "模型", key: "API 密钥", keyNote: "与对话一样，只保存在本浏览器中。", done: "完成",
    drop: "把文本文件拖到这里", copy: "复制", copied: "已复制", edit: "编辑", again: "重新生成", cancel: "取消",
    remove: "删除", untitled: "新对话", thinking: "思考过程", stopped: "已停止。", cut: "已达长度上限。",
    hello: "有什么想了解的？",
    helloNote: "模型就在你自己的机器上运行，你写的内容不会离开它。",
    waiting: n => n ? `排队中：前面还有 ${n} 个` : "等待中……",
    reading: (done, total, left) => `正在读入：${done} / ${total} token` + (left ? `，还需 ${left}` : ""),
    absent: "提问时加载", loading: (what, share) => `模型加载中：${what}，${share} %`,
    loadingWhat: { "loading weights": "读取权重", "compiling kernels": "为本机 CPU 编译", starting: "启动" },
    seconds: s => s < 90 ? `${Math.max(1, Math.round(s))} 秒` : `${Math.round(s / 60)} 分钟`,
    speed: v => `${v} token/秒`, queue: n => `${n} 个排队`, running: n => `${n} 个运行中`,
    memory: (used, total) => `内存 ${used} / ${total} GB`,
    finished: (n, speed, read, cached, wait) =>
      `${n} 个 token，${speed} token/秒` + (wait ? `，首字 ${wait}` : "") + `；读入 ${read}` + (cached ? `，缓存 ${cached}` : ""),
    offline: "服务器没有响应，它在运行吗？", wantsKey: "此服务器需要 API 密钥：请在设置中填写。",
    notText: name => `${name} 不是文本文件。`, tooLarge: name => `${name} 超过 1 MB。`,
    full: "浏览器存储已满：最早的对话已删除。",
    removeAsk: title => `删除“${title}”？`,
    models: "模型", pull: "下载", pullName: "按名称下载模型", load: "加载", use: "使用",
    states: { absent: "未加载", loading: "加载中", ready: "已加载", leaving: "正在卸载", failed: "加载失败" },
    pulling: (done, total, speed, left) =>
      `${done} / ${total} GB` + (speed ? `，${speed} MB/s` : "") + (left ? `，还需 ${left}` : ""),
    looking: "正在查找……", pulled: name => `${name} 已下载。`, pullStopped: "已停止；再次下载会从断点继续。",
  },
};

let language = localStorage.getItem("seventy.language")
  || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export const words = () => WORDS[language];
export const otherLanguage = () => language === "zh" ? "English" : "中文";

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("seventy.language", language);
}

/** Writes the words into everything marked with data-words, data-title or data-placeholder. */
export function translate(root = document) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const one of root.querySelectorAll("[data-words]")) one.textContent = words()[one.dataset.words];
  for (const one of root.querySelectorAll("[data-title]")) {
    one.title = words()[one.dataset.title];
    one.setAttribute("aria-label", one.title);
  }
  for (const one of root.querySelectorAll("[data-placeholder]")) one.placeholder = words()[one.dataset.placeholder];
}
