"""The render command, as `pg render`; `--help` lists its flags."""

from pg.commands import render

if __name__ == "__main__":
    raise SystemExit(render.main())
