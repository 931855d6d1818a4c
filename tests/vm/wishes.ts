/** What the guest is asked to do, as a file in the shared folder. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Wishes {
  /** Parts to run, separated by commas; empty: all. */
  readonly only: string
  /** Numbers of conformance cases, separated by commas; empty: all. */
  readonly cases: string
  /** Files of engine cases, if not all. */
  readonly files?: readonly string[]
  /** One machine of two: `alpha` runs the part with two nodes, `beta` obeys it. */
  readonly role?: 'alpha' | 'beta'
  /** How many random programs, if not all. */
  readonly programs?: number
  /** Processes of the demo on each node, if not as many as it should be. */
  readonly processes?: number
}

const NAME = 'wishes.json'

export function writeWishes(folder: string, wishes: Wishes): void {
  writeFileSync(join(folder, NAME), JSON.stringify(wishes))
}

export function readWishes(folder: string): Wishes {
  const path = join(folder, NAME)
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Wishes) : { only: '', cases: '' }
}

export const isWished = ({ only }: Pick<Wishes, 'only'>, part: string): boolean =>
  only === '' || only.split(',').includes(part)
