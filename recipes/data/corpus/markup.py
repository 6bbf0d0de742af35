"""Plain text out of HTML, manual pages and POD: simple rules that hold for documentation."""

import gzip
import html
import re

_DROPPED = re.compile(
    r"<!--.*?-->|<(script|style|head|nav|header|footer|aside|form|button|svg|math|select|noscript)"
    r"\b[^>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
# What Sphinx and javadoc put around the text proper.
_MAIN = (re.compile(r'<div class="body" role="main">(.*?)<div class="clearer">', re.DOTALL),
         re.compile(r"<main\b[^>]*>(.*)</main>", re.DOTALL))
_ANCHOR = re.compile(r'<a [^>]*class="(?:headerlink|anchor|src[^"]*)"[^>]*>.*?</a>', re.DOTALL)
_PREFORMATTED = re.compile(r"<(pre|textarea)\b[^>]*>(.*?)</\1\s*>", re.DOTALL | re.IGNORECASE)
_ITEM = re.compile(r"<li\b[^>]*>\s*(?:<p\b[^>]*>)?", re.IGNORECASE)
_CELL = re.compile(r"</t[dh]\s*>\s*<t[dh]\b[^>]*>", re.IGNORECASE)
_BREAK = re.compile(r"<br\b[^>]*>", re.IGNORECASE)
_BLOCK = re.compile(
    r"</?(p|div|h[1-6]|ul|ol|li|dl|dt|dd|table|thead|tbody|tr|td|th|section|article|blockquote|"
    r"body|html|main|hr|figure|figcaption|details|summary|caption|center)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[a-zA-Z/!?][^>]*>")


def html_to_text(page):
    """Blocks separated by empty lines; preformatted text keeps its lines."""
    for main in _MAIN:
        found = main.search(page)
        if found:
            page = found.group(1)
            break
    page = _ANCHOR.sub("", _DROPPED.sub(" ", page))
    kept = []  # preformatted texts, put back at the end

    def keep(match):
        inner = _TAG.sub("", _BREAK.sub("\n", match.group(2)))
        kept.append(html.unescape(inner).strip("\n").expandtabs(4))
        return f"<p>\0{len(kept) - 1}\0<p>"

    page = _PREFORMATTED.sub(keep, page.replace("\0", ""))
    page = _ITEM.sub("<p>- ", " ".join(page.split()))
    page = _BREAK.sub("<p>", _CELL.sub(" ", page))
    page = html.unescape(_TAG.sub("", _BLOCK.sub("\n", page))).replace("\xa0", " ")
    page = page.replace("\u200b", "").replace("¶", "")
    blocks = (" ".join(block.split()) for block in page.split("\n"))
    text = "\n\n".join(block for block in blocks if block not in ("", "-"))
    return re.sub("\0(\\d+)\0", lambda match: kept[int(match.group(1))], text)


_ROFF_FONT = re.compile(r"\\f(?:\([A-Z]{2}|\[[^\]]*\]|.)|\\s[-+]?\d|\\[&|^/,]|\\c$")
_ROFF_NAMED = {"aq": "'", "dq": '"', "lq": '"', "rq": '"', "oq": "'", "cq": "'", "em": "-",
               "en": "-", "bu": "-", "co": "(c)", "ha": "^", "ti": "~", "rs": "\\", "mu": "x",
               "->": "->", "<=": "<=", ">=": ">=", "+-": "+/-", "mi": "-"}
_ROFF_BREAKS = {"PP", "P", "LP", "TP", "IP", "HP", "RS", "RE", "sp", "br", "TQ", "Pp"}
_ROFF_FONTS = {"B", "I", "BR", "BI", "IR", "IB", "RB", "RI", "SM", "SB"}


def manual_to_text(page):
    """A page in man(7); tables and unknown requests are left out."""
    out, verbatim, table = [], False, False
    for line in page.split("\n"):
        line = re.sub(r'\\".*', "", line)
        line = re.sub(r"\\\((..)|\\\[([^\]]*)\]",
                      lambda m: _ROFF_NAMED.get(m.group(1) or m.group(2), ""), line)
        line = _ROFF_FONT.sub("", line).replace("\\-", "-").replace("\\e", "\\")
        line = line.replace("\\ ", " ").replace("\\~", " ").replace("\\0", " ").replace("\\.", ".")
        if not line.startswith((".", "'")):
            if not table:
                out.append(line)
            continue
        request, _, rest = line[1:].strip().partition(" ")
        if request in ("TS", "TE"):
            table = request == "TS"
        elif request in ("EX", "nf", "EE", "fi"):
            verbatim = request in ("EX", "nf")
            out.append("\n")
        elif request in ("SH", "SS"):
            out.append("\n\n" + rest.strip('"') + "\n\n")
        elif request in _ROFF_BREAKS:
            out.append("\n\n")
        elif request in _ROFF_FONTS:
            words = re.findall(r'"([^"]*)"|(\S+)', rest)
            joint = " " if len(request) == 1 else ""
            out.append(joint.join(quoted or plain for quoted, plain in words))
        if verbatim and out and not out[-1].endswith("\n"):
            out[-1] += "\n"
    text = "\n".join(out)
    return "\n\n".join(unwrap(block) for block in re.split(r"\n{2,}", text) if block.strip())


_POD_ESCAPE = {"lt": "<", "gt": ">", "sol": "/", "verbar": "|", "amp": "&", "quot": '"'}
_POD_CODE = re.compile(r"[A-Z](?:<<+ (.*?) >>+|<([^<>]*)>)", re.DOTALL)


def _pod_code(match):
    whole = match.group(0)
    inner = match.group(1) if match.group(1) is not None else match.group(2)
    if whole[0] == "E":
        return {"lt": "\0", "gt": "\1"}.get(inner, _POD_ESCAPE.get(inner, ""))
    if whole[0] in "XZ":
        return ""
    if whole[0] == "L" and "|" in inner:
        return inner.split("|")[0]
    return inner


def pod_to_text(page):
    """Perl's documentation format."""
    blocks = []
    for block in re.split(r"\n[ \t]*\n", page):
        block = block.strip("\n")
        if block.startswith("="):
            command, _, rest = block.partition(" ")
            if command[:5] not in ("=head", "=item"):
                continue
            block = rest if command[:5] == "=head" or rest.strip() == "*" else "- " + rest
        elif not block.startswith((" ", "\t")):
            block = unwrap(block)
        before = None
        while before != block and not block.startswith((" ", "\t")):
            before, block = block, _POD_CODE.sub(_pod_code, block)
        block = block.replace("\0", "<").replace("\1", ">")
        if block.strip(" *-"):
            blocks.append(block)
    return "\n\n".join(blocks)


def unwrap(block):
    """A paragraph on one line; a block with indented lines or columns stays as it is."""
    lines = block.strip("\n").split("\n")
    if any(line[:1] in (" ", "\t", "-", "*", "|") or "    " in line for line in lines):
        return "\n".join(lines)
    return " ".join(line.strip() for line in lines)


def wrapped_to_text(page):
    """Plain text with hard line ends."""
    page = page.replace("\r\n", "\n").expandtabs(4).replace("\f", "\n")
    return "\n\n".join(unwrap(block) for block in re.split(r"\n[ \t]*\n+", page) if block.strip())


def text_of(name, raw):
    """The text of a documentation file, by its suffix; None if that is not known."""
    if name.endswith(".gz"):
        name, raw = name[:-3], gzip.decompress(raw)
    suffix = name.rsplit(".", 1)[-1].lower()
    try:
        page = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        page = raw.decode("latin-1")
    if suffix in ("html", "htm"):
        return html_to_text(page)
    if suffix == "pod":
        return pod_to_text(page)
    if suffix[:1].isdigit():
        return manual_to_text(page)
    if suffix in ("txt", "md"):
        return wrapped_to_text(page)
    return None
