"""The check command, as `pg check`; `--help` lists its flags."""

from pg.commands import check

if __name__ == "__main__":
    raise SystemExit(check.main())
