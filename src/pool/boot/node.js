// Required by node when it starts, in a sandbox that is made ahead: waits for its job, and leaves nothing of itself.
'use strict';
const fs = require('fs');
const fd = Number(process.env.FUMEHOOD_BOOT);
delete process.env.FUMEHOOD_BOOT;
delete process.env.NODE_OPTIONS;
for (const name of (process.env.FUMEHOOD_PRELOAD || '|').split('|')[1].split(' ').filter(Boolean)) require(name);
delete process.env.FUMEHOOD_PRELOAD;
fs.writeSync(fd, '\n');
const parts = [];
for (;;) {
  const part = Buffer.allocUnsafeSlow(65536);
  const got = fs.readSync(fd, part, 0, part.length);
  if (got === 0) break;
  parts.push(part.subarray(0, got));
}
fs.closeSync(fd);
if (parts.length === 0) process.reallyExit(1);
const words = Buffer.concat(parts).toString().split('\0');
words.pop();
const count = Number(words.shift());
process.argv.push(...words.slice(0, count));
for (const variable of words.slice(count)) {
  const at = variable.indexOf('=');
  process.env[variable.slice(0, at)] = variable.slice(at + 1);
}
if (process._preload_modules) process._preload_modules.length = 0;
delete require.cache[__filename];
