// Every page, in light, in dark, on a small screen, and by the keyboard alone.

import assert from "node:assert/strict";
import { PAGES, accessible, logIn, noSidewaysScroll, open, operator, origin } from "../visit.mjs";

export const steps = {
  async "each page shows what the gateway has, in light, in dark and on a small screen"() {
    for (const [width, theme] of [[1100, "light"], [360, "dark"]]) {
      const page = await open({ viewport: { width, height: 740 }, colorScheme: theme });
      await logIn(page, operator);
      for (const [name, title] of Object.entries(PAGES)) {
        await page.goto(`${origin}/#/${name}`);
        await page.getByRole("heading", { level: 1, name: title }).waitFor();
        if (name === "tap") await page.getByText("connected", { exact: false }).first().waitFor();
        if (name === "playground") await page.getByRole("textbox", { name: "Payload" }).waitFor();
        if (["tenants", "devices"].includes(name)) await page.getByRole("cell", { name: "lab-1" }).or(page.getByRole("rowheader", { name: "acme", exact: true })).first().waitFor();
        await page.waitForTimeout(100);
        await accessible(page, `${name}, ${theme}, ${width} px`);
        await noSidewaysScroll(page, `${name} at ${width} px`);
      }
      await page.context().close();
    }
  },

  async "the page is used by the keyboard alone"() {
    const page = await open();
    await page.goto(`${origin}/`);
    await page.getByLabel("Token").waitFor();
    await page.getByLabel("Token").focus();
    await page.keyboard.type(operator);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Skip to the page");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
    await page.goto(`${origin}/#/quarantine`);
    const remove = page.getByRole("button", { name: "Remove all" });
    // It is there for the keyboard once there is something to remove.
    await remove.click({ trial: true });
    await remove.focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.context().close();
  },
};
