fn main() -> anyhow::Result<()> {
    anyhow::bail!("usage: cargo xtask guests | demo | test | ci | bench")
}
