// Required by node when it starts, in a sandbox that is made ahead: waits for its job, and leaves nothing of itself.
'use strict';
const fs = require('fs');
const fd = Number(process.env.FUMEHOOD_BOOT);
delete process.env.FUMEHOOD_BOOT;
delete process.env.NODE_OPTIONS;
for (const name of (process.env.FUMEHOOD_PRELOAD || '|').split('|')[1].split(' ').filter(Boolean)) require(name);
delete process.env.FUMEHOOD_PRELOAD;
fs.writeSync(fd || 1, '\n');
const read = (length) => {
  const said = Buffer.allocUnsafeSlow(length);
  for (let at = 0; at < length; ) {
    const got = fs.readSync(fd, said, at, length - at);
    if (got === 0) process.reallyExit(1);
    at += got;
  }
  return said.toString();
};
const words = read(Number(read(10))).split('\0');
if (fd) fs.closeSync(fd);
words.pop();
const [count] = words.splice(0, 2).map(Number);
process.argv.push(...words.slice(0, count));
for (const variable of words.slice(count)) {
  const at = variable.indexOf('=');
  process.env[variable.slice(0, at)] = variable.slice(at + 1);
}
if (process._preload_modules) process._preload_modules.length = 0;
delete require.cache[__filename];
