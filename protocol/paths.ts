/** Where things live. Pure: the caller gives the environment. */
export interface Environment {
  readonly [name: string]: string | undefined
}

/** `--runtime-dir`, else $SHARED_VERBS_DIR, else $XDG_RUNTIME_DIR/shared-verbs, else /run/shared-verbs. */
export function runtimeDirectory(option: string | undefined, environment: Environment): string {
  if (option) return option
  if (environment['SHARED_VERBS_DIR']) return environment['SHARED_VERBS_DIR']
  if (environment['XDG_RUNTIME_DIR']) return `${environment['XDG_RUNTIME_DIR']}/shared-verbs`
  return '/run/shared-verbs'
}

export const controlSocketPath = (directory: string): string => `${directory}/broker.sock`
export const nodeFilePath = (directory: string): string => `${directory}/node`
/** proper-lockfile makes `<path>.lock` beside it. */
export const lockPath = (directory: string): string => `${directory}/broker`
/** Its kernel lock is held by the broker that stands by. */
export const standbyPath = (directory: string): string => `${directory}/standby`

/** Longest path a Unix socket address holds (unix(7): sun_path is 108 bytes with the closing zero). */
export const socketPathByteLength = 107
