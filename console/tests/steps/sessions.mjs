// Logins, tenants, and gateways that go away.

import assert from "node:assert/strict";
import { PAGES, accessible, acme, ask, logIn, open, operator, origin } from "../visit.mjs";

export const steps = {
  async "a wrong token is refused, and the right one opens the page"() {
    const page = await open();
    await page.goto(`${origin}/`);
    await page.getByLabel("Token").fill("wrong");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByText("nobody has this token").waitFor();
    await accessible(page, "the login");
    await logIn(page, operator);
    const cookies = await page.context().cookies();
    assert.ok(cookies.length === 1 && cookies[0].httpOnly && cookies[0].sameSite === "Strict", JSON.stringify(cookies));
    assert.equal(await page.evaluate(() => document.cookie), "");
    await page.context().close();
  },

  async "a tenant sees its own pages and nothing of another"() {
    const page = await open();
    await logIn(page, acme);
    await page.getByRole("heading", { name: "Overview of acme" }).waitFor();
    for (const name of Object.keys(PAGES)) {
      await page.goto(`${origin}/#/${name}`);
      await page.getByRole("heading", { level: 1 }).waitFor();
      await page.waitForTimeout(300);
      const text = await page.evaluate(() => document.body.innerText);
      assert.ok(!text.includes("globex"), `globex stands on ${name}: ${text}`);
    }
    for (const path of ["tenants/globex", "devices/globex/dev-9"]) {
      await page.goto(`${origin}/#/${path}`);
      await page.getByText('not valid for the tenant "globex"').first().waitFor();
    }
    await ask("rename");
    await page.goto(`${origin}/#/overview`);
    await page.getByLabel("Token").waitFor();
    await page.context().close();
  },

  async "a session ends, and the page asks for the token again"() {
    const page = await open();
    await logIn(page, operator);
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByLabel("Token").waitFor();
    await page.context().close();
  },

  async "a gateway that restarts under the page is waited for, and the page says so"() {
    const page = await open();
    await logIn(page, operator);
    await ask("stop");
    await page.getByText("The gateway does not answer; trying again").waitFor();
    await accessible(page, "a page without its gateway");
    await ask("start");
    // Sessions end with the gateway.
    await page.getByLabel("Token").waitFor({ timeout: 30_000 });
    await page.getByLabel("Token").fill(operator);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.context().close();
  },
};
