"""Schema of a declared benchmark: data, columns, options, prompt, kind of answer, groups, aggregates, judge.

A value that says "column or template" is the name of a column, a path into nested ones (``metadata.grade``),
or a Jinja template of columns (``{{ category }}_{{ set_id }}``). ``_row``, ``_split`` and ``_config`` are
columns of every row: its number from 0 over all parts, and the split and configuration that it comes from.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from eval.declared.kinds import KINDS
from eval.declared.templates import Template, compile_template
from rewards.messages import nearest


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, (str, int, float)) else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[list[Text], BeforeValidator(_listed)]


class Section(BaseModel):
    """Section of a declaration; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _template(value: Any) -> Any:
    return value if isinstance(value, Template) else compile_template(_text(value))


TemplateText = Annotated[Template, BeforeValidator(_template)]


def _pattern(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return re.compile(value, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error


Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]


class Data(Section):
    """Where the rows are, on the hub and in a local copy."""

    hub: str | None = Field(None, description="name on the hub; null if the rows cannot be read from there")
    configs: Texts = Field([], description="configurations on the hub, read one after another")
    splits: Texts = Field(description="splits, read one after another unless --split names one")
    file: str = Field("{split}.parquet", description="usual file name of a local copy")
    hub_files: str | None = Field(None, description="pattern of the split's files on the hub")
    obtain: str | None = Field(None, description="where a local copy is found, if it is not on the hub")
    rows: int | None = Field(None, description="published number of rows")
    where: dict[str, Texts] = Field({}, description="only rows with one of these values, by column")
    without: dict[str, Pattern] = Field({}, description="no rows whose column matches the expression")

    @model_validator(mode="after")
    def _obtainable(self) -> Data:
        if self.hub is None and self.obtain is None:
            raise ValueError("name the data set on the hub, or say under obtain where a copy is found")
        return self


class Columns(Section):
    """Columns of a row; each a column or template."""

    id: TemplateText = Field(description="unique id of the question")
    question: TemplateText = Field(description="its text; <image 1> marks the first of the images")
    answer: TemplateText = Field(description="the gold answer")
    images: Annotated[list[TemplateText], BeforeValidator(_listed)] = Field(
        [Template("image")], description="columns with an image, a path or a list of these"
    )


class Options(Section):
    """How the options of a multiple-choice question stand in a row: one of three ways."""

    column: TemplateText | None = Field(None, description="a list, or text that writes a list")
    columns: Texts = Field([], description="one column an option; the first empty one ends them")
    within: TemplateText | None = Field(None, description="a text that lists them: 'A: red, B: blue'")

    @model_validator(mode="after")
    def _one_way(self) -> Options:
        if sum(map(bool, (self.column, self.columns, self.within))) != 1:
            raise ValueError("give one of column, columns and within")
        return self


Form = Literal["text", "letter", "index", "list", "box", "tag"]


class Answer(Section):
    """Kind of the answer, which is the official scoring, and the form of the gold answer in its column."""

    kind: str = Field(description="name of the rule that compares a response with the gold answer")
    form: Form = Field("text", description="text, letter, index (from 0), list, box or tag (within a text)")
    values: dict[str, str] = Field({}, description="what values of the column mean, such as '1': 'Yes'")
    options: dict[str, Any] = Field({}, description="options of the kind, such as relative: 0.05")

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"there is no kind {kind!r}: {nearest(kind, KINDS)}")
        return kind

    @model_validator(mode="after")
    def _fitting(self) -> Answer:
        known = KINDS[self.kind].options
        for name, value in self.options.items():
            if name not in known:
                takes = f"its options are {', '.join(known)}" if known else "it has none"
                raise ValueError(f"the kind {self.kind} has no option {name!r}; {takes}")
            if not isinstance(value, type(known[name])) and not (
                isinstance(value, int) and isinstance(known[name], float)
            ):
                raise ValueError(f"{name}: {value!r} must be a {type(known[name]).__name__}")
        return self


class Group(Section):
    """One dimension of groups."""

    value: TemplateText = Field(description="column or template; a list puts a row into several groups")
    split_at: str | None = Field(None, description="text between several groups in one value: 'ocr,math'")
    names: dict[str, str] = Field({}, description="names of the values; those not listed stay as they are")


class Aggregate(Section):
    """Metric over groups of rows, besides the accuracy of all rows."""

    kind: Literal["macro", "worst", "all"] = Field(
        description="macro: mean of the groups' means; worst: mean of their lowest scores; all: share of "
        "groups whose rows are all right"
    )
    by: TemplateText = Field(description="column or template that names a row's group")
    size: int | None = Field(None, description="rows of a complete group; others are left out", ge=1)
    where: dict[str, Texts] = Field({}, description="only rows with one of these values, by column")
    unless: dict[str, Texts] = Field({}, description="without rows that have one of each of these values")


class Judge(Section):
    """Scoring by an LLM with the benchmark's or an own prompt."""

    prompt: TemplateText = Field(
        description="Jinja template of columns, question, options, gold, response, answer"
    )
    reply: Literal["words", "score", "letters"] = Field(
        description="words: one of those below; score: a number from 0 to 1; letters: the options chosen, "
        "which the kind then compares"
    )
    words: dict[str, TemplateText] = Field(
        {}, description="scores of the words that a reply may consist of, numbers or templates of columns"
    )
    reminder: str = Field("Reply with the verdict alone.", description="added when the judge is asked again")

    @model_validator(mode="after")
    def _has_words(self) -> Judge:
        if (self.reply == "words") != bool(self.words):
            raise ValueError("words go with reply: words")
        for word, score in self.words.items():
            if score.is_column and not re.fullmatch(r"0|1|[01]?\.\d+", score.text):
                raise ValueError(f"the score of {word!r}, {score.text!r}, is no number from 0 to 1")
        return self


class Prompt(Section):
    """What the model is asked."""

    text: TemplateText = Field(description="Jinja template of columns, question, options and choices")
    option: TemplateText = Field(
        default=compile_template("{{ letter }}. {{ text }}"), description="one line of {{ options }}"
    )
    system: str | None = Field(None, description="system prompt")
    max_new_tokens: int = Field(2048, description="usual length limit", ge=1)
    source: str = Field("own wording", description="where the wording is from, with its licence")


class Declaration(Section):
    """One benchmark.

    ``title`` and ``source`` name it, ``read_from`` says where columns and rules were looked up and ``notes``
    what is uncertain; ``reported`` is the number that papers give: ``accuracy`` or an aggregate's name.
    """

    title: str = Field(description="name as its authors write it")
    source: str = Field(description="paper and repository")
    data: Data
    columns: Columns
    options: Options | None = None
    prompt: Prompt
    answer: Answer
    groups: dict[str, Group | str] = {}
    aggregates: dict[str, Aggregate] = {}
    judge: Judge | None = None
    reported: str = "accuracy"
    read_from: Texts = Field(description="documents and files that columns and rules were looked up in")
    checked: str = Field("not yet run on the real file", description="what it was run on")
    notes: str = ""

    @model_validator(mode="after")
    def _reports_a_metric(self) -> Declaration:
        known = ["accuracy", *self.aggregates]
        if self.reported not in known:
            raise ValueError(
                f"reported: there is no metric {self.reported!r}: {nearest(self.reported, known)}"
            )
        return self


class Subset(Section):
    """Rows of another benchmark, as a benchmark of its own."""

    title: str = Field(description="name as its authors write it")
    subset_of: str = Field(description="name of the benchmark")
    where: dict[str, Texts] = Field(description="only rows with one of these values, by column")
    split: str | None = Field(None, description="split of the other benchmark that has these rows")
    rows: int | None = None
    read_from: Texts = []
    checked: str = "not yet run on the real file"
    notes: str = ""
