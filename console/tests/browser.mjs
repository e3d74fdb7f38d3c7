// Debian's Chromium, driven by playwright-core.

import { chromium } from "playwright-core";

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // Its sandbox needs another user than root; the pages are our own.
    chromiumSandbox: process.getuid() !== 0,
    args: ["--disable-dev-shm-usage", "--disable-gpu"],
  });
}
