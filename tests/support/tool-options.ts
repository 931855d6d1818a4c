/** The command line of a tool of this folder: `--help` prints its help and ends it with 0, what it does not know ends it with 2. */
import { type ParseArgsConfig, parseArgs } from 'node:util'

const HELP = { help: { type: 'boolean', short: 'h', default: false } } as const

export function toolOptions<Config extends ParseArgsConfig>(
  help: string,
  config: Config,
): ReturnType<typeof parseArgs<Config>> {
  try {
    const parsed = parseArgs({ ...config, options: { ...config.options, ...HELP } })
    if ((parsed.values as { readonly help?: boolean }).help !== true)
      return parsed as ReturnType<typeof parseArgs<Config>>
    process.stdout.write(`${help}\n`)
    return process.exit(0)
  } catch (error) {
    return refuse(help, error instanceof Error ? error.message : String(error))
  }
}

/** Ends the tool with 2: the first line of its help names it. */
export function refuse(help: string, why: string): never {
  process.stderr.write(`${why}\n\n${help}\n`)
  process.exit(2)
}
