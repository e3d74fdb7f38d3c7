(function (file) {
  'use strict';
  const [HAS, TEXT, COMPILE] = [0, 1, 2];
  const loaded = Object.create(null);

  function resolve(from, request) {
    const said = `require(${JSON.stringify(request)}) in ${from}`;
    if (typeof request !== 'string' || !/^\.\.?(\/|$)/.test(request)) {
      throw new Error(`${said}: only files of the script's own folder are there: expected a path that begins with ./ or ../`);
    }
    const parts = from.split('/').slice(0, -1);
    for (const part of request.split('/')) {
      if (part === '..') {
        if (parts.pop() === undefined) throw new Error(`${said}: it leads out of the script's folder`);
      } else if (part !== '' && part !== '.') {
        parts.push(part);
      }
    }
    const path = parts.join('/');
    const found = ['', '.js', '.cjs', '.json', '/index.js'].find((end) => file(HAS, path + end));
    if (found === undefined) throw new Error(`${said}: the script's folder has no such file`);
    return path + found;
  }

  return function requireFrom(from) {
    return function require(request) {
      const path = resolve(from, request);
      if (path in loaded) return loaded[path].exports;
      const module = { exports: {}, id: path, filename: path };
      loaded[path] = module;
      try {
        if (path.endsWith('.json')) {
          module.exports = JSON.parse(file(TEXT, path));
        } else {
          const folder = path.split('/').slice(0, -1).join('/');
          const run = file(COMPILE, path);
          run.call(module.exports, module.exports, requireFrom(path), module, path, folder);
        }
      } catch (error) {
        delete loaded[path];
        throw error;
      }
      return module.exports;
    };
  };
})
