r"""What is wrong with a text from the web, one pure function a rule.

`TEXT_RULES` give the text back without something, `LINE_RULES` say of one line that it should go, and `DOCUMENT_RULES`
of a whole text. They are made for prose, verse, drama and dialogue in any script: short lines, refrains, dashes, dotted
lines, ornaments (`* * *`) and numbered chapters are no faults. For code they are of no use.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import regex

# Text rules


_BREAKS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
# ZWJ and ZWNJ (U+200D, U+200C) are letters' business in many scripts and stay; so do line breaks and tabs.
_CONTROLS = regex.compile(r"[[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Cn}]--[\n\t\u200c\u200d]]", regex.V1)
_BETWEEN = regex.compile(r"(?<=[^\s\p{Cc}])[\p{Cc}--[\n\t]]+(?=[^\s\p{Cc}])", regex.V1)


def without_controls(text: str) -> str:
    """No control, invisible (byte-order mark, soft hyphen, directions), private or unassigned characters.

    Line breaks of all kinds become U+000A. A control character between two others was a space once and becomes one.
    """
    text = _BREAKS.sub("\n", text)
    return str(_CONTROLS.sub("", _BETWEEN.sub(" ", text))) if _CONTROLS.search(text) else text


_COMMENT = re.compile(r"<!--.{0,10000}?-->|<!DOCTYPE[^<>]*>|<\?xml[^<>]*\?>", re.DOTALL | re.IGNORECASE)
_HIDDEN = re.compile(
    r"<(script|style|noscript|iframe|svg|ref|math|gallery|timeline)\b[^<>]*(?:/>|>.{0,10000}?</\1\s*>)",
    re.DOTALL | re.IGNORECASE,
)
_BLOCK = re.compile(r"</?(?:p|br|div|li|ul|ol|tr|table|h[1-6]|hr|section|article|blockquote)(?:\s[^<>]*)?/?>", re.I)
_INLINE = re.compile(
    r"</?(?:a|abbr|b|big|body|button|center|cite|code|dd|del|dfn|dl|dt|em|font|footer|form|head|header|html|i|img|input|"
    r"ins|kbd|label|link|main|mark|meta|nav|nobr|nowiki|option|pre|q|s|select|small|span|strike|strong|sub|sup|tbody|td|"
    r"th|thead|title|tt|u|var|wbr)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]\w{1,30});")


def without_markup(text: str) -> str:
    """No HTML: known tags and comments go, scripts and styles with their content; entities become characters."""
    if "<" in text:
        # Patterns that look far ahead only where there is an end to find.
        if "<!" in text or "<?" in text:
            text = _COMMENT.sub("", text)
        if "</" in text or "/>" in text:
            text = _HIDDEN.sub("", text)
        text = _INLINE.sub("", _BLOCK.sub("\n", text))
    for _ in range(2):  # "&amp;nbsp;" is seen, too
        if "&" not in text or not _ENTITY.search(text):
            break
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    return text


_WIKI_TABLE = re.compile(r"^\{\|.{0,10000}?^\|\}", re.DOTALL | re.MULTILINE)
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_WIKI_FILE = re.compile(
    r"\[\[(?:Файл|Изображение|Категория|Медиа|File|Image|Category|Media):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]",
    re.I,
)
_WIKI_LINK = re.compile(r"\[\[(?:[^\[\]]*\|)?([^\[\]|]*)\]\]")
_HEADING = re.compile(r"^(={2,6})\s*([^=\n]+?)\s*\1[ \t]*$", re.MULTILINE)
_EMPHASIS = re.compile(r"('{2,5})(?!')([^'\n](?:[^\n]{0,500}?[^'\n])?)\1(?!')")
_SWITCH = re.compile(r"__[A-ZА-Я]{3,30}__")
_EDIT = re.compile(
    r"\[\s*(?:править|править код|edit|edit source|source|источник не указан[^\[\]]{0,40}|citation needed|"
    r"уточнить|значимость факта\?)(?:\s*\|\s*[^\[\]|]{1,30})?\s*\]",
    re.IGNORECASE,
)
_NOTE = re.compile(r"(?<=[^\W\d_])\[\d{1,3}\](?!\w)|(?<=[.,;:!?…»\")\]>])\[\d{1,3}\](?!\w)")


def without_wiki(text: str) -> str:
    """No wiki markup: links become their words; templates, tables, files, categories and numbers of notes go."""
    if "{|" in text and "|}" in text:
        text = _WIKI_TABLE.sub("", text)
    if "{{" in text:
        for _ in range(5):  # templates within templates
            text, number = _TEMPLATE.subn("", text)
            if not number:
                break
    if "[" in text:
        text = _EDIT.sub("", text)
        if "[[" in text:
            text = _WIKI_LINK.sub(r"\1", _WIKI_FILE.sub("", text))
        text = _NOTE.sub("", text)
    if "==" in text:
        text = _HEADING.sub(r"\2", text)
    if "''" in text and "``" not in text:  # ``quotes'' of TeX are quotes
        text = _EMPHASIS.sub(r"\2", text)
    return _SWITCH.sub("", text) if "__" in text else text


_PICTURE = re.compile(r"!\[[^\[\]\n]*\]\([^()\n]*\)")
_MARKDOWN = re.compile(r"\[([^\[\]\n]+)\]\((?:https?:|www\.|/|#|mailto:|\.)[^()\s]*(?:\s+\"[^\"\n]*\")?\)")
_BRACKETED = re.compile(r"\[(?:https?|ftp)://[^\s\[\]]+(?:\s+([^\[\]\n]*))?\]")
_URL = re.compile(
    r"(?:\b(?:https?|ftp)://|\bwww\.(?=[\w-]+\.))(?:\([^\s()]*\)|[^\s<>\"«»“”()\[\]])+(?<![.,;:!?…'])", re.IGNORECASE
)
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_HOLLOW = re.compile(r"[ \t]*(?:\([\s.,;:–—-]*\)|\[[\s.,;:–—-]*\]|<\s*>|«\s*»)")


def without_links(text: str) -> str:
    """No web and mail addresses; links keep their words, brackets left empty go, and so do lines left without a word."""
    if "://" not in text and "www." not in text.lower() and "@" not in text and "](" not in text:
        return text
    lines = []
    for line in text.split("\n"):
        rest = line
        for pattern, instead in ((_PICTURE, ""), (_MARKDOWN, r"\1"), (_BRACKETED, r"\1"), (_URL, "")):
            rest = pattern.sub(instead, rest)
        if "@" in rest:
            rest = _MAIL.sub("", rest)
        if rest == line:
            lines.append(line)
        elif re.search(r"\w", rest):
            lines.append(_HOLLOW.sub("", rest))
    return "\n".join(lines)


_GLOSS = re.compile(r"[ \t]*\([^()\n]{0,80}\)")


def without_letters(text: str, foreign: regex.Pattern[str]) -> str:
    """No letters that match `foreign`; a short bracket that holds one goes whole, being a gloss such as (яп. 東京)."""
    if not foreign.search(text):
        return text
    text = _GLOSS.sub(lambda match: "" if foreign.search(match[0]) else match[0], text)
    return _HOLLOW.sub("", foreign.sub("", text))


_SPACE = re.compile(r"[^\S\n\t ]")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_INNER = re.compile(r"(?<=[^\s])[ \t]{2,}|(?<=[^\s])\t")
_BLANK = re.compile(r"\n{3,}")


def plain_spaces(text: str) -> str:
    """White space: one space between words, none at ends of lines, one empty line at most. Indents of lines stay."""
    text = _TRAILING.sub("", _SPACE.sub(" ", text))
    return _BLANK.sub("\n\n", _INNER.sub(" ", text)).strip("\n").rstrip()


# Line rules; a line comes without the white space at its ends and is not empty


def _byte_pairs(encoding: str) -> str:
    """Characters that the bytes 80–BF, which continue a character in UTF-8, are in a one-byte encoding."""
    return "".join(
        re.escape(bytes([byte]).decode(encoding, errors="ignore") or chr(byte)) for byte in range(0x80, 0xC0)
    )


_MOJIBAKE = re.compile(
    rf"(?:[РС][{_byte_pairs('cp1251')}]){{3,}}|(?:[ÐÑ][{_byte_pairs('cp1252')}] ?){{2,}}|"  # Cyrillic in UTF-8
    rf"(?:[ÃÂ][{_byte_pairs('cp1252')}])|â€[™œ\x9d“”¦]|вЂ[™њќ”“¦љћ]"  # accents and quotes in UTF-8
)
_WORD = re.compile(r"[^\W\d_]+")
_AS_LATIN = re.compile(r"[À-ÿ]{3,}")  # windows-1251 read as Latin-1: Ïðèâåò
_AS_KOI8 = re.compile(r"\b[а-яё][А-ЯЁ]{2,}\b")  # KOI8-R and windows-1251 taken for each other: оПХБЕР


def is_mojibake(line: str) -> bool:
    """Read in a wrong encoding, or with characters lost on the way (U+FFFD)."""
    if line.isascii():
        return False
    if "\ufffd" in line or _MOJIBAKE.search(line):
        return True
    if _AS_LATIN.search(line):
        words = _WORD.findall(line)
        if sum(_AS_LATIN.fullmatch(word) is not None for word in words) > max(2, len(words) * 0.4):
            return True
    return bool(_AS_KOI8.search(line)) and sum(map(str.isupper, line)) > 0.6 * sum(map(str.isalpha, line))


_METADATA = re.compile(
    r"(?:автор(?:ы)? (?:статьи|текста|фото|материала)|источник|опубликовано|дата (?:публикации|создания|добавления)|"
    r"теги|метки|ключевые слова|категори[яи]|рубрик[аи]|просмотр(?:ов|ы)|комментари(?:ев|и)|фото|рейтинг|"
    r"posted (?:by|on|in)|published(?: on| by)?|tags?|categor(?:y|ies)|keywords|views|comments|filed under|last updated|"
    r"permalink|isbn|issn|doi|удк|ббк|url|source url)\s*(?::|№|(?<=isbn|issn)).{0,100}|"
    r"(?:©|\(c\)|copyright\b).{0,120}|(?:layout|permalink|slug|title|date|author):\s\S.{0,100}",
    re.IGNORECASE,
)


def is_metadata(line: str) -> bool:
    """A short line that says something about the text: tags, source, date of publication, counters, copyright."""
    return len(line) <= 140 and _METADATA.fullmatch(line) is not None


_PHRASES = re.compile(
    r"(?:читать|смотреть|узнать|показать|загрузить) (?:далее|дальше|полностью|также|ещё|еще|больше|все|всё|подробнее)|"
    r"читайте (?:также|ещё|еще|по теме)|подробнее|далее|назад|наверх|в начало|главная(?: страница)?|на главную|"
    r"войти|вход|регистрация|войти или зарегистрироваться|зарегистрироваться|выйти|личный кабинет|корзина|"
    r"поделиться(?: (?:ссылкой|в соцсетях|в социальных сетях))?|подписаться(?: на .{1,40})?|подпишитесь на .{1,60}|"
    r"оставить комментарий|добавить комментарий|ответить|комментировать|распечатать|версия для печати|"
    r"карта сайта|о сайте|о нас|контакты|обратная связь|пользовательское соглашение|политика конфиденциальности|"
    r"все права защищены|реклама|скачать(?: бесплатно)?|нравится|мне нравится|показать меню|меню|"
    r"read more|continue reading|learn more|see also|show more|load more|log ?in|sign ?(?:in|up)|log ?out|register|"
    r"home|main page|menu|skip to (?:main )?content|share(?: this| on .{1,20})?|subscribe(?: to .{1,40})?|follow us.{0,30}|"
    r"leave a (?:comment|reply)|reply|print|contact(?: us)?|about(?: us)?|site ?map|privacy policy|terms of (?:use|service)|"
    r"all rights reserved|advertisement|(?:we|this site|this website|сайт|мы) (?:uses?|использу\w+) cookies?.{0,200}|"
    r"cookie policy|accept(?: all)? cookies|next(?: page| post)?|previous(?: page| post)?|back to top|download",
    re.IGNORECASE,
)
_EDGES = " \t.…:»›→←«|•·>-<[]()"
_SEPARATOR = re.compile(r"\s+[|»›→•·>]\s+|\s*\|\s*")


def is_navigation(line: str) -> bool:
    """A site's own words: menus, breadcrumbs, buttons, notices on cookies. What looks like speech or verse is none."""
    if len(line) > 300:
        return False
    # A sentence may consist of such a word: "Вход." and "— Назад!" are prose.
    if line[0] not in "-–—" and line[-1] not in ".!?,;" and _PHRASES.fullmatch(line.strip(_EDGES)):
        return True
    if "«" in line or line[-1] in ".!?,;":
        return False
    parts = [part for part in _SEPARATOR.split(line) if part]
    return len(parts) >= 3 and sum(len(part.split()) for part in parts) <= 4 * len(parts)


_SHORT_WORD = re.compile(r"[^\W\d_]{3}")


def is_table(line: str) -> bool:
    """A row of a table, or numbers without words: bars, tabs, or digits, ten at least, that outnumber all else."""
    if line.count("|") >= 3 or line.count("\t") >= 3:
        return True
    digits = sum(map(str.isdigit, line))
    return digits >= 10 and not _SHORT_WORD.search(line) and digits > 0.5 * sum(map(len, line.split()))


_CODE = re.compile(r'</|/>|="|[{}\\|=_#~^$@;&]+')
_BLOB = re.compile(r"[A-Za-z0-9+/=_%&-]{60,}")
_PAUSES = str.maketrans("", "", " \t\n.…*")
_DOTS = str.maketrans("", "", " \t.…")


def is_symbols(line: str) -> bool:
    """Rulers, code, encoded data: hardly a letter, or a crowd of signs that prose does without.

    Dots (verses left out), stars for a name, and ornaments of fewer than 20 signs are none of these.
    """
    if len(line) >= 60 and _BLOB.search(line):
        return True
    solid = line.translate(_DOTS)
    words = sum(map(str.isalnum, solid))
    if len(solid) >= 20 and words < 0.3 * len(solid):
        return True
    signs = _CODE.findall(line)
    return words > 0 and len(signs) >= 4 and sum(map(len, signs)) > 0.1 * len(solid)


# Document rules; a text comes as the other rules left it


def has_few_letters(text: str) -> bool:
    """Fewer than half of the characters are letters; white space, dots and stars are not counted."""
    solid = len(text.translate(_PAUSES))
    marks = sum(map(len, _WORD.findall(text)))
    if marks >= 0.5 * solid:
        return False
    return len(_LETTERS.findall(text)) < 0.5 * solid  # Indic vowels are marks, which \w leaves out


_LETTERS = regex.compile(r"[\p{L}\p{M}]")
_SEGMENTS = re.compile(r"\n|(?<=[.!?…])\s+")
_NUMBERS = re.compile(r"\b(?:\d+|[IVXLCDM]+)\b")


def is_repetitive(text: str) -> bool:
    """Over 30 % of the characters repeat lines or sentences that the document has already had, numbers set aside.

    Three such repetitions are allowed whatever they fill, so that no short poem falls for its refrain.
    """
    counts = Counter(
        masked for segment in _SEGMENTS.split(text) if len(masked := _NUMBERS.sub("#", segment.strip())) >= 5
    )
    repeated = sum(len(segment) * (count - 1) for segment, count in counts.items())
    total = sum(len(segment) * count for segment, count in counts.items())
    return counts.total() - len(counts) > 3 and repeated > 0.3 * total


TEXT_RULES: Final[Mapping[str, Callable[[str], str]]] = {
    "markup": without_markup,
    "controls": without_controls,
    "wiki": without_wiki,
    "links": without_links,
}
LINE_RULES: Final[Mapping[str, Callable[[str], bool]]] = {
    "mojibake": is_mojibake,
    "metadata": is_metadata,
    "tables": is_table,
    "navigation": is_navigation,
    "symbols": is_symbols,
}
DOCUMENT_RULES: Final[Mapping[str, Callable[[str], bool]]] = {
    "few letters": has_few_letters,
    "repetitive": is_repetitive,
}
