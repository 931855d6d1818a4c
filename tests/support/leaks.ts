/** What may be left behind: descriptors of this process, and files. Processes are found by their mark, see processes.ts. */
import { readdirSync, readlinkSync } from 'node:fs'

/** What each open descriptor of this process is, sorted. */
export function openDescriptors(): string[] {
  return readdirSync('/proc/self/fd')
    .flatMap((name) => {
      try {
        return [readlinkSync(`/proc/self/fd/${name}`)]
      } catch {
        // The descriptor with which the list was read.
        return []
      }
    })
    .sort()
}

/** All files below a directory, relative to it. Nothing when the directory does not exist. */
export function filesBelow(directory: string): string[] {
  try {
    return readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}
