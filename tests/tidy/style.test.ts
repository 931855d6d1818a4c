import { readFileSync } from 'node:fs'
import test from 'ava'
import { sourceFiles, textFiles, topLevel } from './source-files.js'

/** Words that this file may not contain itself, or it would find itself. */
const spelled = (...parts: string[]): string => parts.join('')

test('the top level is what the design says, and dot-files', (t) => {
  const named = topLevel().filter((name) => !name.startsWith('.'))
  t.deepEqual(
    named,
    [
      'README.md',
      'broker',
      'client',
      'package-lock.json',
      'package.json',
      'protocol',
      'shm',
      'tests',
      'tsconfig.json',
    ].sort(),
  )
})

test('only shm/words.ts reads and writes shared words', (t) => {
  const users = sourceFiles.filter((file) => file.folder !== 'tests' && /\bAtomics\b/.test(file.code))
  t.deepEqual(
    users.map((file) => file.path),
    ['shm/words.ts'],
  )
})

test('nothing is left for later, and no check is switched off', (t) => {
  const unfinished = new RegExp(
    `\\b(${spelled('TO', 'DO')}|${spelled('FIX', 'ME')}|${spelled('XX', 'X')}|${spelled('HA', 'CK')})\\b`,
  )
  const silenced = new RegExp(
    `@ts-${spelled('ig', 'nore')}|@ts-${spelled('no', 'check')}|@ts-${spelled('expect', '-error')}`,
  )
  const wrong = sourceFiles.filter((file) => unfinished.test(file.text) || silenced.test(file.text))
  t.deepEqual(
    wrong.map((file) => file.path),
    [],
  )
})

test('no value is of any type', (t) => {
  const loose = new RegExp(`(:|\\bas|<|\\|)\\s*${spelled('an', 'y')}\\b\\s*([,;)>\\]|=\\n[]|$)`, 'm')
  const wrong = sourceFiles.filter((file) => loose.test(file.code.replace(/'[^'\n]*'|`[^`]*`/g, "''")))
  t.deepEqual(
    wrong.map((file) => file.path),
    [],
  )
})

test('no file names a place that exists on one machine only', (t) => {
  const places = new RegExp(
    `(^|[\\s'"\`(=:])/(${spelled('wo', 'rk')}|${spelled('ho', 'me')}|${spelled('ro', 'ot')}|${spelled('Us', 'ers')})/`,
    'm',
  )
  const hosts = new RegExp(`${spelled('"resol', 'ved"')}\\s*:|${spelled('regis', 'try')}\\.[a-z]+\\.[a-z]+`)
  const wrong = textFiles().filter(({ text }) => places.test(text) || hosts.test(text))
  t.deepEqual(
    wrong.map((file) => file.path),
    [],
  )
})

interface LockedPackage {
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

test('npm ci finds every package in the lock file, also those of other machines', (t) => {
  const lock = JSON.parse(readFileSync(new URL('../../package-lock.json', import.meta.url), 'utf8')) as {
    packages: Record<string, LockedPackage>
  }
  // npm leaves out optional packages that its registry did not offer at the time, and then refuses its own file.
  const missing = Object.values(lock.packages)
    .flatMap(({ optionalDependencies = {} }) => Object.keys(optionalDependencies))
    .filter((name) => lock.packages[`node_modules/${name}`] === undefined)
  t.deepEqual(missing, [])
})

/** The one list of the C library's prototypes is long because the list is; everything else has one subject and fits. */
const longest: Readonly<Record<string, number>> = { 'shm/libc.ts': 900 }

test('files are short', (t) => {
  const wrong = sourceFiles
    .map((file) => ({ path: file.path, lines: file.text.split('\n').length }))
    .filter(({ path, lines }) => lines > (longest[path] ?? 600))
    .map(({ path, lines }) => `${path} has ${lines} lines`)
  t.deepEqual(wrong, [])
})
