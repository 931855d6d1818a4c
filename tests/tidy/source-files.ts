/** The repository as the tidy tests see it: its own text files, what each imports, and what each names. */
import { readdirSync, readFileSync } from 'node:fs'
import { posix } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** Folders with sources, bottom up. */
export const folders = ['shm', 'protocol', 'client', 'broker', 'tests'] as const
export type Folder = (typeof folders)[number]

export interface SourceFile {
  /** Relative to the root, with slashes. */
  readonly path: string
  readonly folder: Folder
  readonly text: string
  /** The text without comments. */
  readonly code: string
  /** Modules named by import and export statements and by import(). */
  readonly imports: readonly string[]
}

const withoutComments = (text: string): string => text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1')

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\b[^'"`;]*?\bfrom\s*'([^']+)'|(?:^|\n)\s*import\s+'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/g

/** Programs that tests write stand in template strings; their imports are not ours. */
function importsOf(code: string): string[] {
  return [...code.replace(/`[^`]*`/g, '``').matchAll(IMPORT)].flatMap(
    ([, from, bare, dynamic]) => from ?? bare ?? dynamic ?? [],
  )
}

function sourceFile(path: string, folder: Folder): SourceFile {
  const text = readFileSync(root + path, 'utf8')
  const code = withoutComments(text)
  return { path, folder, text, code, imports: importsOf(code) }
}

export const sourceFiles: readonly SourceFile[] = folders.flatMap((folder) =>
  readdirSync(root + folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.[jt]s$/.test(name))
    .sort()
    .map((name) => sourceFile(`${folder}/${name}`, folder)),
)

const knownPaths = new Set(sourceFiles.map((file) => file.path))

/** Path in the repository of a relative import, sources for what will be built; undefined for packages. */
export function resolveImport(from: SourceFile, specifier: string): string | undefined {
  if (!specifier.startsWith('.')) return undefined
  const path = posix.normalize(posix.join(posix.dirname(from.path), specifier))
  const source = path.replace(/\.js$/, '.ts')
  return knownPaths.has(source) ? source : path
}

export const folderOf = (path: string): string => path.split('/')[0] ?? ''

/** Names directly under the root, without what git ignores. */
export function topLevel(): string[] {
  return readdirSync(root)
    .filter((name) => name !== 'node_modules')
    .sort()
}

export interface TextFile {
  readonly path: string
  readonly text: string
}

/** Every text file that belongs to the repository, documents and settings included. */
export function textFiles(): TextFile[] {
  const dotted = topLevel().filter((name) => /^\.(biome\.json|gitignore|npmignore|tsconfig\.build\.json)$/.test(name))
  const documents = folders.flatMap((folder) =>
    readdirSync(root + folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(md|json|ya?ml|sh|py|c|h|service|conf|txt)$/.test(name))
      .map((name) => `${folder}/${name}`),
  )
  const plain = ['package.json', 'package-lock.json', 'tsconfig.json', 'README.md', '.ci/run', ...dotted, ...documents]
  return [...plain.map((path) => ({ path, text: readFileSync(root + path, 'utf8') })), ...sourceFiles]
}
