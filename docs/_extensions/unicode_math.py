"""Equations as the docstrings write them, in Unicode, to LaTeX."""

import re
import unicodedata

_SCRIPTS = {
    "_": ("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₕₖₗₘₙₚₛₜᵢⱼᵣᵤᵥ", "0123456789+-=()aeoxhklmnpstijruv"),
    "^": ("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣᵀᴴᴺ⊗", "0123456789+-=()abcdeghijklmnoprstuvwxTHN⊗"),
}
_SYMBOLS = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta",
    "η": "eta", "θ": "theta", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi",
    "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
    "Σ": "sum", "Π": "prod", "∫": "int", "∇": "nabla", "∂": "partial", "∞": "infty", "±": "pm",
    "×": "times", "≤": "le", "≥": "ge", "≠": "ne", "≈": "approx", "~": "sim", "∝": "propto",
    "∈": "in", "↦": "mapsto", "→": "to", "·": "cdot", "⊗": "otimes", "‖": "|", "∣": "mid",
    "|": "mid", "⌊": "lfloor", "⌋": "rfloor", "½": "tfrac12", "□": "square", "⊥": "bot", "{": "{",
    "}": "}", "…": "dots",
}  # fmt: skip
_FUNCTIONS = ("log", "exp", "min", "max", "tanh", "arg")
_NAMES = ("std", "mean", "clip", "done", "terminated", "truncated", "Var", "KL", "tr", "diag")
_TOKEN = re.compile(
    r"(?P<owner>[πμσ∇])θ|(?P<critic>[VQ])φ|(?P<accent>\w[\u0302\u0304])|_\{(?P<braced>[^{}]*)\}|_(?P<low>\w)"
    rf"|(?P<sub>[{_SCRIPTS['_'][0]}]+)|(?P<sup>[{_SCRIPTS['^'][0]}]+)|(?P<word>[A-Za-z]+(?:-[a-z]{(2,)}|'s)*|`[\w.]+`)|(?P<gap>\s+)"
    r"|(?P<dots>\.{2,3})|(?P<number>\d+(?:\.\d+)?)|(?P<plain>[-+=<>/!()\[\],.:;'])|(?P<other>.)"
)
_RELATIONS = re.compile("[=≈~↦∝≤≥]")


def is_equation(text: str) -> bool:
    """True for a text that is one equation whose every part has a translation."""
    return bool(_RELATIONS.search(text)) and latex(text) is not None


def latex(text: str, *, words: bool = False) -> str | None:
    """The equation in LaTeX; None where something in it is not understood. words: such as are not
    are set as text.
    """
    parts = []
    for match in _TOKEN.finditer(unicodedata.normalize("NFD", text.strip())):
        part = _translated(match, words)
        if part is None:
            return None
        parts.append(part)
    result = re.sub(r" \}(?=[,;:)])", "}", re.sub(r" \} *\\text\{ ", " ", "".join(parts)))
    # double scripts: no TeX
    return None if re.search(r"_\{[^{}]*\}_|\^\{[^{}]*\}\^|'\^", result) else result


def _translated(match: re.Match[str], words: bool) -> str | None:
    kind, text = match.lastgroup or "", match[match.lastgroup or 0]
    if kind in ("owner", "critic"):
        return f"{latex(text)}_{{{'θ' if kind == 'owner' else 'φ'}}}".replace(
            "θ", r"\theta"
        ).replace("φ", r"\varphi")
    if kind == "accent":
        return rf"\{'hat' if text[1] == chr(0x302) else 'bar'}{{{latex(text[0])}}}"
    if kind in ("braced", "low"):
        inner = latex(text, words=words)
        return None if inner is None else f"_{{{inner}}}"
    if kind in ("sub", "sup"):
        sign = {"sub": "_", "sup": "^"}[kind]
        script = text.translate(str.maketrans(*_SCRIPTS[sign]))
        return f"{sign}{{{script.replace('⊗', chr(92) + 'otimes ')}}}"
    if kind == "word":
        return _word(text, match.string[match.end() : match.end() + 1], words)
    if kind == "gap":
        return r" \quad " if len(text) > 1 else " "
    if kind == "other":
        return rf"\{_SYMBOLS[text]} " if text in _SYMBOLS else None
    return r"\dots " if kind == "dots" else text


def _word(text: str, following: str, words: bool) -> str | None:
    if text == "E" and following in ("[", "_"):
        return r"\mathbb{E}"
    if len(text) == 1 or (len(text) == 2 and text.isupper() and text != "KL"):
        return text
    if text in _FUNCTIONS:
        return rf"\{text} "
    if text in _NAMES:
        return rf"\operatorname{{{text}}} "
    if not words:
        return None
    return (
        rf"\texttt{{{text[1:-1]}}}".replace("_", r"\_") if text[0] == "`" else rf"\text{{ {text} }}"
    )
