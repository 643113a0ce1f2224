"""Find the image URLs of a product document: values at dotted paths, and the URLs in one text.

Documents differ in where they keep images (lists, objects, several fields) and in how they write
them (JSON in a text, lists joined by commas, `srcset`). All shapes become one flat list of entries.
What an entry must be to become a row is decided in `listing`; how a single URL is cleaned for the
request, in `imgassets.urls`.
"""

from __future__ import annotations

import ast
import html
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

GRAPH = "@graph"
"""JSON-LD keeps the objects of a page in this list, without naming it in paths."""

_URL_KEYS = (
    *("contenturl", "image", "imageurl", "imagelink", "imgurl", "imgsrc"),
    # Where these are, `src` is a placeholder or a smaller image.
    *("datasrc", "datalazysrc", "dataoriginal", "datasrcset"),
    *("src", "srcset", "url", "href"),
    *("@list", "@set", "@value", "@src", "@url", "@href"),  # the last three come from XML
)
"""Fields of an image object that hold its URL, in lower case without `-` and `_`. The most specific
are first: `url` and `href` can also name the page. `contentUrl` is that of
https://schema.org/ImageObject."""

_PLACEHOLDERS = frozenset(
    {"n/a", "n.a.", "k.a.", "na", "nan", "nat", "nil", "none", "null", "undefined", "#", "?"}
    # Spreadsheets, pandas, databases.
    | {"#n/a", "#ref!", "#value!", "<na>", "<null>", "(null)", "\\n", "false", "true", "0"}
    | {"empty", "missing", "tbd", "unknown"}
)
_NOT_ON_A_SERVER = ("data:", "blob:", "about:", "javascript:", "<", "#")

_ABSOLUTE = ("https://", "http://")
_EXTENSION = r"\.(?:avif|bmp|gif|jpe?g|jxl|png|tiff?|webp)\b"
_URL = re.compile(rf"\s*(?:(?:https?:)?/|\S+{_EXTENSION})", re.I)
# One URL, without what the rules below look for.
_PLAIN_URL = re.compile(r"https?://[^\s,;|<)\\\x7f-\U0010ffff]+")
_START = re.compile(r"(?:https?:)?/", re.I)
_SEPARATOR = re.compile(r"[\s,;|，；、｜]")  # noqa: RUF001  (also those of Chinese and Japanese)
# A separator inside a URL is not followed by the start of another one. A line break is in no URL.
_NEXT_URL = re.compile(
    r"(?<=[\s,;|，；、｜])(?=https?://|//\w[^\s/.]{0,99}\.[^\s/]{1,200}/)"  # noqa: RUF001
    r"|(?<=[\r\n])(?=/)"
    r"|(?<=[,;|])(?=\s*(?:n/a|nan|none|null|undefined)\s*(?:[,;|]|$))",
    re.I,
)
# What follows the end of a URL, but is no URL: alternative text, the label of the next URL.
_REMARK = re.compile(
    rf"({_EXTENSION}(?:\?[^\s|]*)?)(?:\s!\s.*|(?:[,;]?\s|\|(?=.*(?:\s|:$)))(?:(?!{_EXTENSION})[^/])*)$",
    re.I | re.DOTALL,
)
_BLANK = re.compile(r"[\s|]")
# Names of URLs: `front=https://..., back=https://...`, as Java and Hive print objects.
_NAMED_URLS = re.compile(r"[{\[]{0,2}[\w.-][\w .-]{0,40}[=:]\s{0,9}https?://", re.I)
_NAME_OF_URL = re.compile(r"(?:^|[\s,;|{])[\w.-][\w .-]{0,40}[=:](?=\s{0,9}https?://)", re.I)
# A URL in quotes or brackets, in a text that is neither a URL nor JSON: cut off, JavaScript, CSS.
_QUOTED_URL = re.compile(
    r"(?<=[\"'`(<>\[{“„«])\s*((?:https?:|(?=//\w[^\s/]*\.))//[^\s\"'`<>“”»]+)", re.I
)
_IMAGE_TAG = re.compile(r"<(?:img|source)\s", re.I)
# Line breaks of HTML and of database exports, before the next URL.
_ESCAPED_BREAK = re.compile(
    r"(?:\\[nrt]|<[Bb][Rr]\s{0,9}/?>)(?=\s{0,9}(?:[Hh][Tt]{2}[Pp]|//|\\[nrt]|<[Bb][Rr]|$))"
)
# JavaScript and JSON write `/`, `&` and `=` like this, too; once or twice escaped.
_ESCAPE = re.compile(r"\\{1,4}(?:u(00[2-7][\da-f])|/)", re.I)
# A whole URL as the parameter of another one.
_ENCODED_URL = re.compile(r"https?%3a%2f%2f", re.I)
# With two dots or more, the text before the slash is a host, not a folder.
_HOST = re.compile(r"(?:[\w-]{1,63}\.){2,9}[a-z]{2,24}(?::\d+)?/", re.I)
# Byte-order mark and characters without width, which `strip` leaves.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
_ENTITY = re.compile(r"&(?:\w+|#\d+|#x[0-9a-f]+);", re.I)
_DESCRIPTOR = re.compile(r"\s\d+(?:\.\d+)?[wx](?:\s+\d+h)?\s*(?:,|$)", re.I)
_SRCSET_URL = re.compile(r"[\s,]*([^\s,]\S*)")
_SPLIT_SRCSET = re.compile(r"\s*\S+\s+(\d+(?:\.\d+)?[wx])\s*,?\s*", re.I)
_SRCSET_SIZE = re.compile(r"(\d+(?:\.\d+)?)([wx])")
_AROUND = " ,;|，；、｜\r\n\t"  # noqa: RUF001
_BRACKETS = {"[": "]", "{": "}", "(": ")"}
# How Scala and Spark print lists: `WrappedArray(https://..., https://...)`.
_LIST_OF_SCALA = re.compile(r"\w{1,20}\((?=\s{0,9}https?://)", re.I)
# A file whose name ends with that of an image format, with or without parameters.
_IMAGE_FILE = re.compile(rf"\s*\S.*{_EXTENSION}(?:\?\S*)?\s*", re.I)
# How NumPy writes a list of texts.
_MISSING_COMMA = re.compile(r"(['\"])\s+(?=\1)")
_MAX_DEPTH = 50


def values_at_paths(document: Mapping[str, Any], paths: Sequence[str]) -> object:
    """Get the values at one or several paths of a document.

    Args:
        document: The document.
        paths: Dotted paths; see `value_at_path`.

    Returns:
        The value at a single path. For several paths, the list of their values that are not empty.
        None if there is no value.
    """
    if len(paths) == 1 and paths[0] in document:  # the usual case
        return document[paths[0]]
    try:
        found = [value_at_path(document, path, images=True) for path in paths]
    except RecursionError:  # lists in lists, deeper than any database allows
        return None
    if len(found) == 1:
        return found[0]
    return [value for value in found if value] or None


def value_at_path(document: object, path: str, *, images: bool = False) -> object:
    """Get the value at a dotted path, which also goes through lists, as in MongoDB.

    A field whose name contains dots is found by its whole name, and `images.0` is the first element
    of the list `images`.

    Args:
        document: The document.
        path: The dotted path.
        images: Whether the path leads to images. Then the objects in a JSON-LD `@graph` count as
            those of the object around it, and a text on the path can be JSON, or a URL in place of
            an object with one, which is then the value.

    Returns:
        The value; None if there is none. For a list on the path, the values of its elements that
        are not empty.
    """
    if not path:
        return document
    if isinstance(document, list | tuple):
        return _value_in_list(document, path, images)
    if isinstance(document, str) and images:
        is_url = _URL.match(document) is not None
        return document if is_url else value_at_path(_parse(document), path, images=True)
    return _value_in_object(document, path, images) if isinstance(document, Mapping) else None


def _value_in_list(entries: Sequence[object], path: str, images: bool) -> object:
    first, _, rest = path.partition(".")
    if first.isdecimal():
        index = int(first)
        inner = entries[index] if index < len(entries) else None
        return value_at_path(inner, rest, images=images)
    values = (value_at_path(entry, path, images=images) for entry in entries)
    return [value for value in values if value]


def _value_in_object(document: Mapping[Any, Any], path: str, images: bool) -> object:
    for name, rest in _splits(path):
        if name in document:
            return value_at_path(document[name], rest, images=images)
    if images and GRAPH in document:
        return _value_in_graph(document[GRAPH], path)
    return None


def _value_in_graph(nodes: object, path: str) -> object:
    """The values of the products of a JSON-LD page, or of all its objects if it has no product."""
    if not isinstance(nodes, list | tuple):
        return value_at_path(nodes, path, images=True)
    objects = [node for node in nodes if isinstance(node, Mapping)]
    products = [node for node in objects if "Product" in str(node.get("@type"))]
    value = value_at_path(products, path, images=True) or value_at_path(nodes, path, images=True)
    # An object with nothing but an id stands for the object of the page that has this id.
    named = {str(node["@id"]): node for node in objects if "@id" in node}

    def resolved(value: object) -> object:
        if isinstance(value, list):
            return [resolved(entry) for entry in value]
        if isinstance(value, Mapping) and value.keys() == {"@id"}:
            return named.get(str(value["@id"]), value)
        return value

    return resolved(value)


def fields_near(document: Mapping[str, Any], path: str) -> tuple[str, list[str]]:
    """The fields of the innermost object of a document that a path reaches, as a hint for users.

    Args:
        document: A document in which the path finds nothing.
        path: The dotted path.

    Returns:
        The path of the object, empty for the document itself, and the names of its fields.
    """
    parts = path.split(".")
    for length in reversed(range(1, len(parts))):
        reached = value_at_path(document, ".".join(parts[:length]), images=True)
        inner = reached if isinstance(reached, list) else [reached]
        names = dict.fromkeys(
            name for entry in inner if isinstance(entry, Mapping) for name in entry
        )
        if names:
            return ".".join(parts[:length]), [str(name) for name in names]
    return "", [str(name) for name in document]


def path_heads(path: str) -> list[str]:
    """The names of a field that a path can start with: `a.b` is in the field `a.b` or in `a`."""
    return [name for name, _ in _splits(path)]


def image_entries(value: object, separator: str | None, base_url: str | None) -> list[object]:
    """Flatten the value of a document's images to one list.

    Args:
        value: A text, an object or a list, of any depth; other values and empty ones have no entry.
        separator: What separates several URLs in one text; None: it is guessed, see `split_urls`.
        base_url: The page that relative URLs refer to; None: they stay relative.

    Returns:
        Texts of URLs without surrounding space, in the order of the document; and the values that
        are no text of a URL, each at its place.
    """
    if not isinstance(value, str | Mapping | list | tuple):
        return []
    entries = _flatten(value, separator, 0)
    return [_absolute(entry, base_url) if isinstance(entry, str) else entry for entry in entries]


def well_formed(text: str) -> str:
    """A text without halves of characters (lone surrogates), which no file can store.

    JSON can contain them, for example in a text that was cut off. As in browsers, each becomes
    U+FFFD.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_placeholder(text: str) -> bool:
    """Whether a text names no file on a server, such as `N/A`, `-`, `data:...`, `about:blank`."""
    if text.startswith(_ABSOLUTE):
        return False
    lower = text[:100].strip().lower()
    parts = [part for part in re.split(r"[\s,;|]+", lower) if part.strip("-_.–—")]  # noqa: RUF001
    return all(part in _PLACEHOLDERS for part in parts) or lower.startswith(_NOT_ON_A_SERVER)


def is_phrase(text: str) -> bool:
    """Whether a text is several words or a label, such as `No image` or `Front:`, and no path.

    A single word can be the name of a file, which `source.base_url` completes.
    """
    return re.search(r"[/.\\?=%]", text) is None and re.search(r"\s|:$", text) is not None


def is_relative(url: str) -> bool:
    """Whether a URL has neither a scheme nor a host."""
    if url.startswith(_ABSOLUTE):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return not parts.scheme and not parts.netloc


def split_urls(text: str, separator: str | None) -> list[str]:
    """Split a text that is not JSON into its URLs.

    Args:
        text: One URL, several URLs, or the `srcset` of an `<img>`.
        separator: What separates several URLs. None: spaces, line breaks, commas, semicolons and
            vertical bars, where the start of another URL follows.

    Returns:
        The URLs; of a `srcset`, only the largest image. A text without any separator is one URL.
    """
    text = text.strip()
    if separator is None and not _SEPARATOR.search(text):  # the usual case
        return [text]
    if _DESCRIPTOR.search(text):
        return [_largest_of_srcset(text)]
    if separator is None or text[:5].lower() == "data:":
        parts = [part.strip(_AROUND) for part in _NEXT_URL.split(text)]
        if len(parts) == 1 and "://" not in text:
            files = re.split("[,;|]", parts[0])
            parts = files if all(_IMAGE_FILE.fullmatch(file) for file in files) else parts
        # Few URLs have a space or a bar, and looking for one takes less time.
        parts = [
            _REMARK.sub(r"\1", p) if _BLANK.search(p) and _START.match(p) else p for p in parts
        ]
    else:
        if ";" in separator:
            text = _without_entities(text)
        parts = [part.strip() for part in text.split(separator)]
    return [part for part in parts if part] or [""]


def _splits(path: str) -> Iterator[tuple[str, str]]:
    """The ways to split a path into the name of a field and the rest, the longest name first."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        yield ".".join(parts[:length]), ".".join(parts[length:])


def _flatten(value: object, separator: str | None, depth: int) -> Iterator[object]:
    if depth > _MAX_DEPTH:
        yield ...  # an entry that is no URL; the value itself is too deep for a message
    elif isinstance(value, str):
        if separator is None and _PLAIN_URL.fullmatch(value):  # the usual case
            yield value
            return
        parsed = _parse(value)
        if parsed is not None:
            yield from _flatten(parsed, separator, depth + 1)
        else:
            yield from _entries_of_text(value, separator, depth)
    elif isinstance(value, list | tuple):
        for entry in [", ".join(value)] if _is_split_srcset(value) else value:
            yield from _flatten(entry, separator, depth + 1)
    elif isinstance(value, Mapping):
        inner = _urls_of_object(value)
        if inner is None:
            yield value
        else:
            yield from _flatten(inner, separator, depth + 1)
    else:
        yield value


def _entries_of_text(text: str, separator: str | None, depth: int) -> Iterator[object]:
    """The entries of a text that is not JSON."""
    text = text.strip().strip(_INVISIBLE)
    if text.lower().startswith("&lt;"):
        text = _without_entities(text)
    if _IMAGE_TAG.search(text):
        yield from _flatten(_image_tags(text), separator, depth + 1)
        return
    if text[:1] == "<":
        text = _without_entities(text)
    text = _without_escapes(_without_brackets(text))
    quoted = [] if _START.match(text) else _QUOTED_URL.findall(text)
    if quoted:
        yield from (url.rstrip("\\,;)]}") for url in quoted)
    elif separator is None and _NAMED_URLS.match(text) and not is_placeholder(text):
        for part in filter(None, _NAME_OF_URL.split(text)):
            yield from split_urls(part.rstrip("{[]} ,"), separator)
    else:
        yield from split_urls(text, separator)


def _is_split_srcset(entries: Sequence[Any]) -> bool:
    """Whether the texts of a list are the images of one `srcset`, each with another size."""
    if len(entries) < 2 or not isinstance(entries[0], str) or entries[0][-1:] not in "wxWX":
        return False
    sizes = [isinstance(entry, str) and _SPLIT_SRCSET.fullmatch(entry) for entry in entries]
    return all(sizes) and len({size[1] for size in sizes if size}) == len(entries)


def _image_tags(text: str) -> list[dict[str, str | None]]:
    """The attributes of the images in HTML."""
    found: list[dict[str, str | None]] = []

    class Images(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag in ("img", "source"):
                found.append(dict(attrs))

    Images().feed(text)
    return found


def _urls_of_object(value: Mapping[Any, Any]) -> object:
    """The part of an object that holds URLs: the field of its URL, or all of `{front: url}`.

    Returns:
        The part; None if there is none. An empty object is an empty list.
    """
    fields = {re.sub("[-_]", "", str(name).lower()): inner for name, inner in value.items()}
    unlikely = None
    for name in _URL_KEYS:
        inner = fields.get(name)
        if inner and not (isinstance(inner, str) and is_placeholder(inner)):
            if isinstance(inner, str) or _looks_like_url(inner):
                return inner
            unlikely = unlikely or inner
    if unlikely:
        return unlikely
    if GRAPH in value:
        return value_at_path(value, "image", images=True)
    if not value:
        return []
    urls = [
        inner
        for name, inner in value.items()
        # The type of an object is a URL in JSON-LD and in microdata.
        if not str(name).startswith("@") and name != "type" and _looks_like_url(inner)
    ]
    # Beside complete URLs, a file name such as `front.jpg` is a title.
    urls = [inner for inner in urls if not _is_file_name(inner)] or urls
    return urls or [name for name in value if str(name).startswith(_ABSOLUTE)] or None


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and _URL.match(value) is not None and "/" not in value


def _looks_like_url(value: object, depth: int = 0) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if isinstance(value, str):
        return _URL.match(value) is not None or _looks_like_url(_parse(value), depth + 1)
    if isinstance(value, Mapping):
        value = list(value.values())
    return isinstance(value, list | tuple) and any(_looks_like_url(v, depth + 1) for v in value)


def _parse(text: str) -> list[Any] | tuple[Any, ...] | Mapping[str, Any] | str | None:
    """Read a text that is JSON, or a list or dictionary as Python prints it; else None."""
    text = text.strip().strip(_INVISIBLE)
    if text.startswith(("[&", "{&", "&quot;")):
        text = _without_entities(text)
    if not text or text[0] not in "[{(\"'" or text[-1] not in "]})\"'":
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _parse_python(_MISSING_COMMA.sub(r"\1, ", text))
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return value if isinstance(value, list | tuple | Mapping | str) else None


def _parse_python(text: str) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # backslashes in a text
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None


def _without_brackets(text: str) -> str:
    """Remove the brackets of a list whose texts have no quotes, such as `[http://a, http://b]`."""
    if text and _BRACKETS.get(text[0]) == text[-1]:
        return text[1:-1]
    if text[-1:] == ")" and (name := _LIST_OF_SCALA.match(text)):
        return text[name.end() : -1]
    return text


def _without_escapes(text: str) -> str:
    if "\\" not in text and "<" not in text:
        return text
    text = _ESCAPED_BREAK.sub("\n", text)
    return _ESCAPE.sub(lambda escape: chr(int(escape[1] or "2f", 16)), text)


def _without_entities(text: str) -> str:
    # Without its semicolon, `&copy` is the start of a parameter.
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def _largest_of_srcset(text: str) -> str:
    """The URL of the largest image of a `srcset`.

    Follows https://html.spec.whatwg.org/multipage/images.html#parsing-a-srcset-attribute: a URL
    ends at a space, so it can contain commas.
    """
    largest, size = "", (-1.0, -1.0)
    position = 0
    while match := _SRCSET_URL.match(text, position):
        url, position = match[1], match.end()
        descriptors = ""
        if not url.endswith(","):
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            descriptors, position = text[position:end], end
        sizes = dict.fromkeys("wx", 0.0)
        sizes |= {unit: float(number) for number, unit in _SRCSET_SIZE.findall(descriptors.lower())}
        if (sizes["w"], sizes["x"] or 1.0) > size:
            largest, size = url.rstrip(","), (sizes["w"], sizes["x"] or 1.0)
    return largest


def _absolute(url: str, base_url: str | None) -> str:
    url = well_formed(url.strip())
    if not url or url.startswith(_ABSOLUTE):
        return url
    if _ENCODED_URL.match(url):
        return unquote(url)
    if _HOST.match(url):
        return f"https://{url}"
    if base_url is None or is_placeholder(url) or is_phrase(url):
        return url
    try:
        return url if urlsplit(url).scheme else urljoin(base_url, url)
    except ValueError:  # malformed; the download says so
        return url
