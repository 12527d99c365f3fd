"""`seventy plan`: what to buy."""

from typing import Annotated

import typer


def plan(
    article: Annotated[bool, typer.Option("--article", help="The article's builds, side by side with ours.")] = False,
    lang: Annotated[str | None, typer.Option(help="en or zh (default: the locale's).")] = None,
) -> None:
    """Say what to buy: whole machines ranked by predicted tokens per second."""
    from seventy.plan.words import language

    speak = language(lang)
    if article:
        from seventy.plan.article import article_text

        print(article_text(speak))
