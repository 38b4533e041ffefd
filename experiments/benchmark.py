"""The benchmark command, as `pg benchmark`; `--help` lists its flags."""

from pg.commands import benchmark

if __name__ == "__main__":
    raise SystemExit(benchmark.main())
