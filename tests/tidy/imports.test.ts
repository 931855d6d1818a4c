import test from 'ava'
import { type Folder, folderOf, resolveImport, type SourceFile, sourceFiles } from './source-files.js'

/** Whom each folder may import, itself included. Mechanism knows no vocabulary, vocabulary does nothing, actors never meet. */
const mayImport: Readonly<Record<Folder, readonly string[]>> = {
  shm: ['shm'],
  protocol: ['protocol', 'shm'],
  client: ['client', 'protocol', 'shm'],
  broker: ['broker', 'protocol', 'shm'],
  tests: ['tests', 'broker', 'client', 'protocol', 'shm'],
}

function* edges(): Generator<{ file: SourceFile; specifier: string; target: string }> {
  for (const file of sourceFiles) {
    for (const specifier of file.imports) {
      const target = resolveImport(file, specifier)
      if (target !== undefined) yield { file, specifier, target }
    }
  }
}

test('each folder imports only what lies below it', (t) => {
  const wrong = [...edges()]
    .filter(({ file, target }) => !mayImport[file.folder].includes(folderOf(target)))
    .map(({ file, target }) => `${file.path} imports ${target}`)
  t.deepEqual(wrong, [])
})

/** Declarations: how records lie, and how long a ring of them is. */
const declarations = ['shm/layout.ts', 'shm/reference-ring.ts']

test('the vocabulary imports nothing of the mechanism but declarations', (t) => {
  const wrong = [...edges()]
    .filter(({ file, target }) => file.folder === 'protocol' && folderOf(target) === 'shm')
    .filter(({ target }) => !declarations.includes(target))
    .map(({ file, target }) => `${file.path} imports ${target}`)
  t.deepEqual(wrong, [])
})

test('imports name files that exist, as they are called when built', (t) => {
  const known = new Set(sourceFiles.map((file) => file.path))
  const wrong = [...edges()]
    .filter(({ specifier, target }) => !known.has(target) || !specifier.endsWith('.js'))
    .map(({ file, specifier }) => `${file.path} imports ${specifier}`)
  t.deepEqual(wrong, [])
})

/** Modules of Node that do input or output. */
const doingModules = /^node:(fs|net|tls|http|https|dgram|child_process|worker_threads|cluster)/

test('the vocabulary does no input or output', (t) => {
  const wrong = sourceFiles
    .filter((file) => file.folder === 'protocol')
    .flatMap((file) => file.imports.filter((name) => doingModules.test(name)).map((name) => `${file.path}: ${name}`))
  t.deepEqual(wrong, [])
})

/** Started by name, not imported. */
const entryPoints = ['broker/bin.js', 'broker/typescript.js', 'broker/main.ts', 'client/index.ts']
/** Tests, and programs that people run. */
const isEntryPoint = (path: string): boolean =>
  /\.test\.ts$|^tests\/(bench|vm)\//.test(path) || /^tests\/vm\/(run|guest\/main)\.ts$/.test(path)

/** Files that are started as processes or threads are named in a string: by their last part, perhaps without its ending. */
function namesInStrings(file: SourceFile): string[] {
  const stem =
    file.path
      .split('/')
      .pop()
      ?.replace(/\.[jt]s$/, '') ?? ''
  return [`/${stem}.ts`, `/${stem}.js`, `'${stem}.ts`, `'${stem}.js`, `/${stem}.\${`, `'${stem}.\${`, `'${stem}'`]
}

test('every file is used', (t) => {
  const byPath = new Map(sourceFiles.map((file) => [file.path, file]))
  const reached = new Set<string>()
  const waiting = [...entryPoints, ...sourceFiles.map((file) => file.path).filter(isEntryPoint)]
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const file = byPath.get(path)
    if (file === undefined || reached.has(path)) continue
    reached.add(path)
    waiting.push(...file.imports.flatMap((specifier) => resolveImport(file, specifier) ?? []))
    const named = sourceFiles.filter((other) => namesInStrings(other).some((name) => file.code.includes(name)))
    waiting.push(...named.map((other) => other.path))
  }
  const dead = sourceFiles.map((file) => file.path).filter((path) => !reached.has(path))
  t.deepEqual(dead, [])
})
