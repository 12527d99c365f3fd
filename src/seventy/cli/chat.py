import contextlib
import sys

from seventy.cli import _session as session
from seventy.errors import SeventyError

_HELP = "/exit leaves, /clear starts anew, Ctrl-C stops an answer; a line that ends with \\ goes on"


def chat(
    model: session.ModelArgument = "smollm2",
    system: session.System = None,
    chat_template: session.ChatTemplate = None,
    max_tokens: session.MaxTokens = None,
    temperature: session.Temperature = 0.7,
    top_k: session.TopK = 40,
    top_p: session.TopP = 0.95,
    min_p: session.MinP = 0.05,
    repeat_penalty: session.RepeatPenalty = 1.0,
    seed: session.Seed = None,
    context: session.Context = None,
    threads: session.Threads = None,
    isa: session.Isa = None,
    kv: session.KV = "f16",
    draft: session.Draft = "auto",
    verbose: session.Verbose = False,
) -> None:
    """Talk with a model; Ctrl-C stops the answer, not the program."""
    with contextlib.suppress(ImportError):
        # Line editing and history at the prompt, where Python has it.
        import readline  # noqa: F401
    with session.load(model, threads, context, isa, kv, draft, chat_template) as llm:
        if verbose:
            session.describe(llm.model, threads)
        profile, first = session.machine_limit(llm.model)
        if context is None:
            session.say_context(llm.model)
        session.say_template(llm)
        session.say(_HELP)
        start = [{"role": "system", "content": system}] if system else []
        messages = list(start)
        while True:
            try:
                question = _ask()
            except EOFError:
                break
            except KeyboardInterrupt:
                session.say("\n(/exit leaves)")
                continue
            if question in ("/exit", "/quit"):
                break
            if question == "/clear":
                messages = list(start)
                continue
            if not question:
                continue
            messages.append({"role": "user", "content": question})
            try:
                stream = llm.stream(
                    messages, max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                    repeat_penalty=repeat_penalty, seed=seed,
                )  # fmt: skip
            except SeventyError as error:
                # The conversation has outgrown the context, say: the question is taken back, the program stays.
                session.say(f"seventy: {error} (/clear starts anew)")
                messages.pop()
                continue
            try:
                session.write(stream)
            except KeyboardInterrupt:
                stream.close()
                session.say("(stopped)")
            if stream.completion is None:
                messages.pop()
                continue
            messages.append({"role": "assistant", "content": stream.completion.text})
            session.report(stream.completion, profile.read_bandwidth_gbs, llm.context)
        if first:
            session.promise(profile)


def _ask() -> str:
    """A question, over several lines where they end with a backslash."""
    lines = [_line("> ")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(_line("... "))
    return "\n".join(lines).strip()


def _line(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    # stdout is for answers alone.
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return input()
