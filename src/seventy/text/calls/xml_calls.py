"""Calls written as XML: every argument has an element of its own, texts stand there without quotes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from seventy.text.calls.arguments import is_text, literal, of_schema, properties, sequence, until, value
from seventy.text.calls.base import Tool, parameters
from seventy.text.calls.marked import Call, Marked
from seventy.text.calls.repair import read_object, write


class _Elements(Marked):
    """`head` is written before the arguments, `argument` and `close` around each, `tail` after them."""

    # The name of a tool at the beginning of a call's body, and one argument.
    named: ClassVar[re.Pattern[str]]
    element: ClassVar[re.Pattern[str]]
    head: ClassVar[str]
    argument: ClassVar[str]
    close: ClassVar[str]
    tail: ClassVar[str]
    # Around all calls.
    first: ClassVar[str] = ""
    last: ClassVar[str] = ""
    between: ClassVar[str] = "\n"

    def _read(self, body: str) -> list[Call]:
        head = self.named.match(body)
        if head is None:
            raise ValueError
        name, rest = head[1].strip(), body[head.end() :]
        if rest.lstrip().startswith("{"):
            # Llama 3's and Functionary's: an object instead of elements.
            arguments = read_object(rest)
            if arguments is None:
                raise ValueError
            return [(name, arguments)]
        known = properties(self.tools.get(name, {}))
        found = {match[1].strip(): self._value(match, known) for match in self.element.finditer(rest)}
        if self.element.sub("", rest).strip():
            raise ValueError
        return [(name, found)]

    @classmethod
    def _value(cls, match: re.Match[str], known: Mapping[str, Mapping[str, Any]]) -> Any:
        return value(match[2], known.get(match[1].strip(), {}))

    @classmethod
    def grammar(cls, tools: Sequence[Tool], parallel: bool) -> str:
        call = " | ".join(f"call{at}" for at in range(len(tools)))
        between = f"{literal(cls.between)} " if cls.between else ""
        more = f" ({between}({call}))*" if parallel else ""
        first, last = (f" {literal(mark)} " if mark else " " for mark in (cls.first, cls.last))
        lines = [f"start:{first}({call}){more}{last}", f"text[lazy]: {until(cls.close)}"]
        for at, tool in enumerate(tools):
            schema = parameters(tool)
            known = properties(schema)
            rules = {}
            for number, (name, one) in enumerate(known.items()):
                rule = rules[name] = f"argument{at}_{number}"
                opened, written = cls.argument.format(name=name, text="true" if is_text(one) else "false"), "text"
                if is_text(one) and isinstance(one.get("enum"), list):
                    written = f"({' | '.join(literal(f'{choice}{cls.close}') for choice in one['enum'])})"
                elif not is_text(one):
                    lines.append(f"value{at}_{number}: {of_schema(one or {})}")
                    written = f"value{at}_{number} {literal(cls.close)}"
                lines.append(f"{rule}: {literal(opened)} {written}")
            arguments = sequence(rules, schema)
            head = cls.head.format(name=tool["function"]["name"])
            lines.append(f"call{at}: {literal(head)} {arguments} {literal(cls.tail)}")
        return "\n".join(lines) + "\n"

    @classmethod
    def written(cls, calls: Sequence[Mapping[str, Any]]) -> str:
        texts = []
        for call in calls:
            given = call["arguments"]
            inner = given if isinstance(given, str) else "".join(
                cls.argument.format(name=name, text="true" if isinstance(one, str) else "false")
                + (one if isinstance(one, str) else write(one)) + cls.close
                for name, one in given.items()
            )  # fmt: skip
            texts.append(cls.head.format(name=call["name"]) + inner + cls.tail)
        return cls.first + cls.between.join(texts) + cls.last


class FunctionElements(_Elements):
    """Qwen3-Coder, Qwen3.5 and others: `<tool_call>\\n<function=NAME>\\n<parameter=P>\\nvalue\\n</parameter> ...`"""

    markers = ("<tool_call>", "</tool_call>")
    begin, end, wrappers = "<function=", "</function>", ("<tool_call>", "</tool_call>")
    named = re.compile(r"([^>\n]+)>")
    element = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
    head, argument, close = "<tool_call>\n<function={name}>\n", "<parameter={name}>\n", "\n</parameter>\n"
    tail = "</function>\n</tool_call>"

    @staticmethod
    def written_by(template: str) -> bool:
        return "<function=" in template


class Glm(_Elements):
    """GLM 4.5 and later: `<tool_call>NAME\\n<arg_key>k</arg_key>\\n<arg_value>v</arg_value>\\n</tool_call>`"""

    markers = ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
    begin, end = "<tool_call>", "</tool_call>"
    named = re.compile(r"\s*([^<\n{]+)")
    element = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
    head, argument = "<tool_call>{name}\n", "<arg_key>{name}</arg_key>\n<arg_value>"
    close, tail = "</arg_value>\n", "</tool_call>"

    @staticmethod
    def written_by(template: str) -> bool:
        return "<arg_key>" in template


class MiniMax(_Elements):
    """MiniMax M2: `<minimax:tool_call>\\n<invoke name="NAME">\\n<parameter name="p">v</parameter>\\n</invoke> ...`"""

    markers = wrappers = ("<minimax:tool_call>", "</minimax:tool_call>")
    begin, end = "<invoke name=", "</invoke>"
    named = re.compile(r"""["']?([^"'>]+)["']?>""")
    element = re.compile(r"""<parameter name=["']?([^"'>]+)["']?>(.*?)</parameter>""", re.DOTALL)
    head, argument = '<invoke name="{name}">\n', '<parameter name="{name}">'
    close, tail, between = "</parameter>\n", "</invoke>\n", ""
    first, last = "<minimax:tool_call>\n", "</minimax:tool_call>"

    @staticmethod
    def written_by(template: str) -> bool:
        return "<invoke name=" in template and "｜DSML｜" not in template


class Dsml(_Elements):
    """DeepSeek V3.2: MiniMax's elements with marks of its own, and for each argument whether it is a text."""

    markers = ("｜DSML｜",)
    wrappers = ("<｜DSML｜function_calls>", "</｜DSML｜function_calls>")
    begin, end = "<｜DSML｜invoke name=", "</｜DSML｜invoke>"
    named = MiniMax.named
    element = re.compile(
        r"""<｜DSML｜parameter name="([^">]+)"(?: string="(?:true|false)")?>(.*?)</｜DSML｜parameter>""", re.DOTALL
    )
    head, argument = '<｜DSML｜invoke name="{name}">\n', '<｜DSML｜parameter name="{name}" string="{text}">'
    close, tail, between = "</｜DSML｜parameter>\n", "</｜DSML｜invoke>\n", ""
    first, last = "<｜DSML｜function_calls>\n", "</｜DSML｜function_calls>"

    @classmethod
    def _value(cls, match: re.Match[str], known: Mapping[str, Mapping[str, Any]]) -> Any:
        return match[2] if ' string="true"' in match[0][: match.start(2) - match.start()] else value(match[2], {})

    @staticmethod
    def written_by(template: str) -> bool:
        return "｜DSML｜" in template and "function_calls" in template


class Dsml4(Dsml):
    """DeepSeek V4: the same in another wrapper."""

    wrappers = ("<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>")
    first, last = "<｜DSML｜tool_calls>\n", "</｜DSML｜tool_calls>"

    @staticmethod
    def written_by(template: str) -> bool:
        return "｜DSML｜" in template
